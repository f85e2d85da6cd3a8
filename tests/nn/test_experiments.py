"""The experiments' runner: what a run is, that it is kept, resumed and reproduced, and what is said of results."""

import gzip
import json
import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ocpkit import ProblemError
from ocpkit.cli.reproduce import workers
from ocpkit_nn import Backpropagation
from ocpkit_nn.experiments import harness, paper
from ocpkit_nn.experiments.harness import execute
from ocpkit_nn.experiments.report import provenance
from ocpkit_nn.experiments.results import Results, estimate, quartiles
from ocpkit_nn.experiments.run import COLLECTED, Options, Result, Run, read_results, write_results
from ocpkit_nn.experiments.trial import _loaded, dataset, train
from tests.nn.strategies import few_examples

torch.set_num_threads(1)

RUN = Run(
    item="test",
    dataset="wine",
    method="sgd",
    baseline="sgd",
    learning_rate=0.1,
    seed=0,
    epochs=1,
    batch_size=8,
    network={"width": 4, "depth": 2},
)


def invented(run, loss=1.0, seconds=2.0):
    return Result(run, loss, 50.0, 1, seconds, {"update": [1]}, {"spectrum": [1.0]}, {"machine": "none"})


OTHER = {"epsilon": 1e-3, "network": {"width": 5}, "optimizer": {"terminal": "ggn"}, "samples": 9, "record_every": 3}


@pytest.mark.parametrize("name", [field.name for field in fields(Run)])
def test_every_field_of_a_run_is_in_its_key(name):
    value = getattr(RUN, name)
    other = OTHER[name] if name in OTHER else value + "x" if isinstance(value, str) else value + 1
    assert replace(RUN, **{name: other}).key != RUN.key
    assert replace(RUN).key == RUN.key


def test_a_row_is_flat_json_and_reads_back():
    result = invented(RUN)
    row = json.loads(json.dumps(result.row(), allow_nan=False))
    expected = {"item", "dataset", "model", "method", "baseline", "learning_rate", "epsilon", "seed"}
    assert expected | {"train_loss", "accuracy", "updates", "versions", "curves"} <= row.keys()
    assert row["epsilon"] is None
    assert Result.from_row(row) == result


@pytest.mark.parametrize(
    ("seeds", "said"),
    [([3], "seed 3"), ([2, 0, 1, 1], "seeds 0 to 2"), ([0, 1, 1000, 1001, 7], "seeds 0 to 1, 7, 1000 to 1001")],
)
def test_a_report_names_the_seeds_that_there_are_and_no_others(seeds, said):
    results = [invented(replace(RUN, seed=seed)) for seed in seeds]
    assert f", {said}, " in provenance(results)


def test_only_what_is_missing_is_trained(tmp_path):
    trained = []

    def count(run):
        trained.append(run.seed)
        return invented(run)

    runs = [replace(RUN, seed=seed) for seed in range(3)]
    first = execute(runs[:2], count, tmp_path)
    both = execute([*runs, runs[0]], count, tmp_path)
    assert trained == [0, 1, 2]
    assert [result.run for result in both] == runs
    assert both[:2] == first
    assert sorted(path.stem for path in (tmp_path / "runs").iterdir()) == sorted(run.key for run in runs)


def test_collected_results_are_gone_on_with_unless_a_run_has_a_file_of_its_own(tmp_path):
    old, new = invented(RUN), replace(invented(RUN), accuracy=1.0)
    more = replace(RUN, seed=1)
    write_results(tmp_path / COLLECTED, [old, invented(replace(RUN, seed=7))])
    assert execute([RUN, more], invented, tmp_path) == [old, invented(more)]
    execute([RUN], lambda run: new, tmp_path / "other")
    (tmp_path / "other" / "runs" / f"{RUN.key}.json").rename(tmp_path / "runs" / f"{RUN.key}.json")
    assert execute([RUN], invented, tmp_path) == [new]
    (tmp_path / COLLECTED).write_text("[")
    with pytest.raises(ProblemError, match=r"results\.json\.gz is damaged"):
        execute([RUN], invented, tmp_path)


def test_a_run_that_fails_leaves_no_file_and_the_others_stay(tmp_path):
    def fail_at_one(run):
        if run.seed == 1:
            raise KeyboardInterrupt
        return invented(run)

    with pytest.raises(KeyboardInterrupt):
        execute([replace(RUN, seed=seed) for seed in range(3)], fail_at_one, tmp_path)
    assert [path.stem for path in (tmp_path / "runs").iterdir()] == [RUN.key]


def test_a_damaged_file_is_named(tmp_path):
    execute([RUN], invented, tmp_path)
    path = tmp_path / "runs" / f"{RUN.key}.json"
    path.write_text("{")
    with pytest.raises(ProblemError, match=f"{RUN.key}.json is damaged"):
        execute([RUN], invented, tmp_path)


def test_one_run_of_each_kind_tells_how_long_the_others_take(tmp_path):
    seconds = {"sgd": 3.0, "adam": 5.0}
    runs = [replace(RUN, method=method, seed=seed) for method in seconds for seed in range(4)]
    heard = []
    results = execute(
        runs,
        lambda run: invented(run, seconds=seconds[run.method]),
        tmp_path,
        on_progress=heard.append,
        estimate_only=True,
    )
    assert [result.run.method for result in results] == ["sgd", "adam"]
    assert [progress.done for progress in heard] == [0, 1, 2]
    assert heard[1].seconds_left is None
    assert heard[-1].seconds_left == 3 * 3.0 + 3 * 5.0


def test_results_are_rewritten_as_they_were(tmp_path):
    results = [invented(replace(RUN, seed=seed)) for seed in range(3)]
    write_results(tmp_path / COLLECTED, results)
    assert read_results(tmp_path / COLLECTED) == results
    assert len(json.loads(gzip.decompress((tmp_path / COLLECTED).read_bytes()))) == 3
    with pytest.raises(ProblemError, match="run the item first"):
        read_results(tmp_path / "none")


def test_measures_are_kept_with_six_digits_and_no_spaces(tmp_path):
    result = replace(invented(RUN), measures={"values": [(1 / 3, 12345678), None], "name": "x"})
    write_results(tmp_path / COLLECTED, [result])
    assert read_results(tmp_path / COLLECTED)[0].measures == {"values": [[0.333333, 12345678], None], "name": "x"}
    assert b" " not in gzip.decompress((tmp_path / COLLECTED).read_bytes())
    returned = execute([RUN], lambda run: result, tmp_path / "trained")
    assert returned == read_results(tmp_path / COLLECTED)


def without_time(result):
    return replace(result, seconds=0.0)


def test_a_run_is_reproduced_whatever_ran_before():
    first = train(RUN)
    torch.manual_seed(5)
    train(replace(RUN, seed=1))
    assert without_time(train(RUN)) == without_time(first)
    assert first.updates == math.ceil(142 / 8)
    assert first.curves["update"] == [0, 18]
    assert first.curves["train_loss"][-1] == first.train_loss < first.curves["train_loss"][0]


@pytest.mark.slow
def test_processes_change_nothing(tmp_path):
    runs = [replace(RUN, seed=seed) for seed in range(3)]
    alone, together = execute(runs, train, tmp_path / "a"), execute(runs, train, tmp_path / "b", jobs=2)
    assert list(map(without_time, alone)) == list(map(without_time, together))


@pytest.mark.slow
def test_a_dask_cluster_changes_nothing_either(tmp_path):
    distributed = pytest.importorskip("distributed", reason="the cluster is installed with the extra 'dev'")
    runs = [replace(RUN, seed=seed) for seed in range(3)]
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        workers(cluster.scheduler_address),
    ):
        together = execute(runs, train, tmp_path / "a", jobs=2)
    assert list(map(without_time, together)) == list(map(without_time, execute(runs, train, tmp_path / "b")))


def test_a_cluster_that_does_not_answer_is_named():
    pytest.importorskip("distributed", reason="the cluster is installed with the extra 'dev'")
    with pytest.raises(ProblemError, match="no Dask scheduler answers at 'nonsense://1'"), workers("nonsense://1"):
        pass


def test_divergence_ends_a_run_and_is_recorded():
    result = train(replace(RUN, learning_rate=1e30, network={"width": 4, "depth": 2, "activation": "relu"}))
    assert result.diverged
    assert (result.loss, result.accuracy, result.curves["train_loss"][-1]) == (math.inf, None, None)
    assert result.updates < 18
    json.dumps(result.row(), allow_nan=False)


@pytest.mark.parametrize("terminal", ["montecarlo", "ggn", "rank"])
def test_divergence_is_recorded_where_the_terminal_curvature_fails_first(terminal):
    """Labels cannot be drawn from probabilities that are not numbers, nor a Hessian be decomposed that is none."""
    optimizer = {"terminal": terminal, **({"rank": 1} if terminal == "rank" else {})}
    network = {"width": 4, "depth": 2, "activation": "relu"}
    run = replace(RUN, method="ddpnopt", learning_rate=1e30, network=network, optimizer=optimizer)
    assert train(run).diverged


def test_an_error_that_is_no_divergence_is_raised(monkeypatch):
    def fail(self, inputs, targets):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(Backpropagation, "step", fail)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        train(RUN)


def test_curves_have_the_points_that_were_asked_for():
    result = train(replace(RUN, record_every=5))
    assert result.curves["update"] == [0, 5, 10, 15, 18]


def test_watch_sees_every_update():
    seen = []
    train(RUN, lambda update, model, stepper: seen.append(update))
    assert seen == list(range(1, 19))


def rows(inputs):
    return {tuple(row) for row in inputs.tolist()}


def test_validation_never_sees_the_test_set():
    whole, held = dataset(RUN), dataset(replace(RUN, evaluated_on="validation"))
    assert rows(held.train_inputs).isdisjoint(rows(held.test_inputs))
    assert rows(held.train_inputs) | rows(held.test_inputs) == rows(whole.train_inputs)
    assert len(held.test_inputs) == round(0.2 * len(whole.train_inputs) + 0.5)
    assert len(dataset(replace(RUN, samples=10)).train_inputs) == 10
    assert _loaded("wine", 0).train_inputs.shape == whole.train_inputs.shape


def test_unknown_names_are_refused():
    with pytest.raises(ProblemError, match="did you mean 'adam'"):
        train(replace(RUN, method="adm"))
    with pytest.raises(ProblemError, match="unknown item 'e33'; did you mean 'e3'"):
        harness.find("e33")
    with pytest.raises(ProblemError, match="seeds must be at least 1"):
        Options(seeds=0)


values = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8)


@few_examples
@given(values, st.floats(-10, 10))
def test_paired_differences_ignore_what_the_seeds_share(losses, shift):
    twins = [invented(replace(RUN, seed=seed), loss + shift) for seed, loss in enumerate(losses)]
    baselines = [invented(replace(RUN, seed=seed), loss) for seed, loss in reversed(list(enumerate(losses)))]
    found = Results(twins).minus(Results(baselines))
    assert found.mean == pytest.approx(shift, abs=1e-9)
    assert found.error == pytest.approx(0.0, abs=1e-9)


def test_estimates_are_those_of_numpy_and_divergence_is_not_hidden():
    data = [1.0, 2.0, 4.0]
    found = estimate(data)
    assert (found.mean, found.error) == (np.mean(data), pytest.approx(np.std(data, ddof=1) / math.sqrt(3)))
    assert estimate([1.0, math.inf]).text() == "diverged"
    one, diverged = invented(RUN, 1.0), invented(RUN, None)
    assert Results([one]).minus(Results([diverged])).mean == -math.inf
    assert Results([diverged]).minus(Results([one])).mean == math.inf
    assert math.isnan(Results([diverged]).minus(Results([diverged])).mean)


@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=9))
def test_medians_are_those_of_numpy(losses):
    assert estimate(losses).median == pytest.approx(np.median(losses))
    low, middle, high = quartiles(losses)
    assert low <= middle <= high
    assert {low, high} <= set(losses)


def test_one_divergence_moves_the_mean_and_not_the_median():
    losses = [1.0, 2.0, 3.0, math.inf]
    assert estimate(losses).mean == math.inf
    assert estimate(losses).median == 2.5
    assert estimate([1.0, math.inf, math.inf]).median_text() == "diverged"
    assert estimate([1.0, math.inf]).median == math.inf
    assert estimate([-math.inf, 1.0]).text() == "−∞"
    assert math.isnan(estimate([-math.inf, math.inf]).mean)


def test_the_papers_share_is_the_one_its_text_gives():
    assert paper.improved_cells() == (47, 48)
    assert set(paper.TABLE_9) == set(paper.TABLE_10) == set(paper.EPSILONS)
    for name, block in paper.TABLE_9.items():
        assert block.keys() == paper.TABLE_10[name].keys()
        assert all(
            len(row) == 1 + len(paper.EPSILONS[name]) for row in [*block.values(), *paper.TABLE_10[name].values()]
        )
