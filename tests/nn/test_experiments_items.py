"""The items in their quick form, through the command line: what they write, and that it can be recomputed."""

import json

import pytest
import torch
from typer.testing import CliRunner

from ocpkit.cli import app
from ocpkit_nn.experiments import registry
from ocpkit_nn.experiments.e3 import runs
from ocpkit_nn.experiments.paper import EPSILONS, TABLE_9
from ocpkit_nn.experiments.report import FAILS, HOLDS, PARTLY, Report
from ocpkit_nn.experiments.run import Options, Result

torch.set_num_threads(1)


def reproduce(*arguments):
    return CliRunner().invoke(app, ["reproduce", *arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Results of all items in their quick form."""
    out = tmp_path_factory.mktemp("results")
    result = reproduce("all", "--quick", "--seeds", "1", "--out", str(out))
    assert result.exit_code == 0, result.stderr
    return out


@pytest.mark.slow
@pytest.mark.parametrize("item", registry.ITEMS)
def test_an_item_writes_results_report_and_figures(folder, item):
    rows = json.loads((folder / item / "results.json").read_text(), parse_constant=pytest.fail)
    assert len({json.dumps(row, sort_keys=True) for row in rows}) == len(rows) > 0
    assert {row["item"] for row in rows} == {item}
    for row in rows:
        assert (row["epsilon"] is None) or row["method"] == "ddpnopt"
        assert row["updates"] > 0
        assert {"python", "torch", "ocpkit"} <= row["versions"]["versions"].keys()
    text = (folder / item / "report.md").read_text()
    assert text.startswith(f"# {registry.find(item).TITLE}")
    assert "not judged" in text
    pictures = [line.partition("](")[2][:-1] for line in text.splitlines() if line.startswith("![")]
    assert pictures
    assert all((folder / item / name).stat().st_size > 1000 for name in pictures)


@pytest.mark.slow
@pytest.mark.parametrize("item", registry.ITEMS)
def test_nothing_is_trained_twice(folder, item, monkeypatch):
    before = (folder / item / "results.json").read_bytes()
    monkeypatch.setattr(registry.find(item), "train", lambda run: pytest.fail(f"trained again: {run}"))
    result = reproduce(item, "--quick", "--seeds", "1", "--out", str(folder))
    assert result.exit_code == 0, result.stderr
    assert (folder / item / "results.json").read_bytes() == before


def test_the_estimate_trains_one_run_of_each_kind(tmp_path):
    result = reproduce("e3", "--quick", "--seeds", "1", "--estimate", "--out", str(tmp_path), "-d", "wine")
    assert result.exit_code == 0, result.stderr
    assert "CPU minutes left" in result.stdout
    every = runs(Options(quick=True, seeds=1, datasets=("wine",)))
    assert len(list((tmp_path / "e3" / "runs").iterdir())) == len({run.kind() for run in every}) < len(every)


def test_wrong_input_is_one_line(tmp_path):
    for arguments, message in (
        (["e33"], "did you mean 'e3'"),
        (["e3", "--quick", "-d", "digts"], "did you mean 'digits'"),
    ):
        result = reproduce(*arguments, "--out", str(tmp_path))
        assert (result.exit_code, result.stdout) == (2, "")
        assert message in result.stderr.splitlines()[-1]


def test_e3_has_every_cell_of_table_9_with_all_three_twins():
    every = [run for run in runs(Options(seeds=1)) if run.terminal != "ggn"]
    for name, block in TABLE_9.items():
        for rate in block:
            cell = [run for run in every if (run.baseline, run.learning_rate) == (name, rate)]
            assert sum(run.method == name for run in cell) == 1
            assert sum(run.feedback == "none" for run in cell) == 1
            for feedback in ("full", "value"):
                assert {run.epsilon for run in cell if run.feedback == feedback} == {0.0, *EPSILONS[name]}


def invented(run, loss):
    return Result(run, loss, 50.0, 1, 0.0, {}, {}, {})


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [
        (lambda run: run.learning_rate, HOLDS),
        (lambda run: 0.1 - 0.01 * run.learning_rate, PARTLY),  # improves, but less and less
        (lambda run: run.learning_rate * (-1 if run.baseline == "sgd" else 1), PARTLY),
        (lambda run: -1.0, FAILS),
    ],
)
def test_e3_judges_by_its_rule(tmp_path, monkeypatch, gain, verdict):
    nothing = lambda *_: None  # noqa: E731
    for draw in ("draw_heat_maps", "draw_sources"):
        monkeypatch.setattr(f"ocpkit_nn.experiments.e3.{draw}", nothing)
    losses = lambda run: 10.0 - (gain(run) if run.feedback == "full" else 0.0)  # noqa: E731
    report = registry.find("e3").report([invented(run, losses(run)) for run in runs(Options(seeds=2))], tmp_path)
    assert isinstance(report, Report)
    assert report.verdict == verdict
