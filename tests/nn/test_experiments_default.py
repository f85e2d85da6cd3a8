"""The protocol that chooses the default form of the feedback: what it lets in, and what it does not look at."""

import pytest

from ocpkit import ProblemError
from ocpkit_nn.experiments import default
from ocpkit_nn.experiments.default import CANDIDATES, INCUMBENT, TEST, VALIDATION
from ocpkit_nn.experiments.report import FAILS, HOLDS, PARTLY
from ocpkit_nn.experiments.run import Options, Result

RUNS = default.runs(Options(seeds=2))
BETTER, OTHER = "full, montecarlo", "full, ggn"
FIRST = RUNS[0].dataset, RUNS[0].batch_size


def candidate_of(run):
    return next(name for name, options in CANDIDATES.items() if options == run.optimizer)


def setting_of(run):
    return run.dataset, run.batch_size


def invented(run, gain):
    """A result whose accuracy is the gain above 50 %, with a little noise that the candidates share."""
    accuracy = 50.0 + run.seed % 7 + gain(run) * (1 + 0.1 * (run.seed % 2))
    return Result(run, 1.0, accuracy, 1, 0.0, {"train_loss": [2.0, 1.0]}, {}, {})


def judge(gain, monkeypatch, tmp_path):
    monkeypatch.setattr(default, "_draw", lambda *_: None)
    return default.report([invented(run, gain) for run in RUNS], tmp_path)


def is_validation(run):
    return run.evaluated_on == VALIDATION


@pytest.mark.parametrize(
    ("gain", "chosen", "verdict"),
    [
        (lambda run: 0.0, INCUMBENT, HOLDS),
        (lambda run: 1.0 * (candidate_of(run) == BETTER), BETTER, FAILS),
        (lambda run: 1.0 * (candidate_of(run) == BETTER) + 2.0 * (candidate_of(run) == OTHER), OTHER, FAILS),
        (lambda run: 1.0 * (candidate_of(run) == BETTER and setting_of(run) == FIRST), BETTER, FAILS),
        # clearly worse on one setting, however good on the others
        (lambda run: (candidate_of(run) == BETTER) * (-1.0 if setting_of(run) == FIRST else 9.0), INCUMBENT, HOLDS),
        # test data do not choose
        (lambda run: 1.0 * (candidate_of(run) == BETTER and not is_validation(run)), INCUMBENT, PARTLY),
        (lambda run: 1.0 * (candidate_of(run) == BETTER and is_validation(run)), BETTER, FAILS),
    ],
)
def test_it_chooses_by_the_rule(gain, chosen, verdict, monkeypatch, tmp_path):
    report = judge(gain, monkeypatch, tmp_path)
    assert f"The protocol chooses “{chosen}”" in report.text
    assert report.verdict == verdict


def test_the_change_at_each_rate_is_over_all_settings_of_the_report(monkeypatch, tmp_path):
    def gain(run):
        at_the_rate = (run.baseline, run.learning_rate) == ("sgd", 0.5)
        return -9.0 if is_validation(run) else 2.0 * (at_the_rate and candidate_of(run) == BETTER)

    table = judge(gain, monkeypatch, tmp_path).tables[-1]
    changes = {row[0]: dict(zip(table.header, row))[BETTER] for row in table.rows}
    assert changes.pop("SGD, 0.5") == "**2.10 ± 0.03**"  # 2 and 2.2 for the two seeds, on six settings
    assert set(changes.values()) == {"0.00 ± 0.00"}
    assert len(changes) == 5


def test_selection_and_report_share_no_seed_and_selection_no_test_data():
    seeds = {part: {run.seed for run in RUNS if run.evaluated_on == part} for part in (VALIDATION, TEST)}
    assert not seeds[VALIDATION] & seeds[TEST]
    assert len({run.key for run in RUNS}) == len(RUNS)


def test_data_without_a_setting_are_refused():
    with pytest.raises(ProblemError, match="no setting has the data cifar10"):
        default.runs(Options(datasets=("cifar10",)))
