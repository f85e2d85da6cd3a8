"""The command line: what each command prints, its exit statuses, and its answer to wrong input."""

import json
import math
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ocpkit import Solution, registry
from ocpkit.cli import doctor
from ocpkit.cli.commands import app
from ocpkit.cli.live import ROWS, IterationTable
from ocpkit.cli.report import print_json
from ocpkit.solution.history import Iteration

MODEL = """
import time
from ocpkit import Constraint, Problem, math as m
from ocpkit.models.task import Task

def problem(horizon=20):
    return Problem.from_functions(
        dynamics=lambda x, u: m.stack([x[0] + 0.1 * x[1], x[1] + 0.1 * m.sin(u[0])]),
        cost=lambda x, u: x[0] ** 2 + 0.1 * u[0] ** 2,
        terminal_cost=lambda x: 10 * (x[0] ** 2 + x[1] ** 2),
        x0=[1.0, 0.0], horizon=horizon, name="cart",
    )

def slow():
    return slow_steps(100)

def slow_steps(horizon=2):
    calls = 0
    def dynamics(x, u):
        nonlocal calls
        calls += 1
        if calls == 600:  # by now the solver is running
            open("running", "w").close()
        time.sleep(0.001)
        return m.stack([x[0] + 0.1 * u[0]])
    return Problem.from_functions(
        dynamics=dynamics, cost=lambda x, u: u[0] ** 2, terminal_cost=lambda x: x[0] ** 2,
        x0=[1.0], horizon=horizon, derivatives="central", name="slow",
    )

fixed = problem(5)
bounded = Problem.from_functions(
    dynamics=lambda x, u: x + u, cost=lambda x, u: u[0] ** 2, terminal_cost=lambda x: x[0] ** 2,
    x0=[1.0], horizon=3, control_size=1, control_bounds=(-0.1, 0.1), name="bounded",
)
constrained = bounded.replace(terminal_constraints=(Constraint(lambda x: x[0], upper=0.8),))
noisy = Problem.from_functions(
    dynamics=lambda x, u: x + u, cost=lambda x, u: u[0] ** 2, terminal_cost=lambda x: x[0] ** 2,
    x0=[1.0], horizon=3, control_size=1, noise=lambda x, u: m.stack([u]),
)
undefined = Problem.from_functions(
    dynamics=lambda x, u: x + u, cost=lambda x, u: u[0] ** 2 + m.log(x[0]), terminal_cost=lambda x: x[0] ** 2,
    x0=[-1.0], horizon=3, control_size=1,
)
explosive = Problem.from_functions(
    dynamics=lambda x, u: m.exp(1000 * x) + u, cost=lambda x, u: u[0] ** 2, terminal_cost=lambda x: x[0] ** 2,
    x0=[1.0], horizon=3, control_size=1,
)
number = 7
def broken():
    return 1 / 0
def draw(axes, x, u):
    axes.plot([x[0]], [0], "s")
task = Task(
    name="cart", summary="", source="", build=problem, time_step=0.1, state_labels=("position [m]", "speed [m/s]"),
    control_labels=("angle [rad]",), draw=draw, view=(-1, 1, -1, 1),
)
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    """Work in a folder that holds a model file."""
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(MODEL)


def ocpkit(*arguments):
    return CliRunner().invoke(app, list(arguments))


def strict_json(text):
    """Parse JSON that must not hold NaN or Infinity."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


def test_solve_prints_the_solution_and_the_iterations():
    result = ocpkit("solve", "model.py:problem")
    assert result.exit_code == 0
    assert "converged" in result.stdout
    assert "cost J" in result.stdout
    assert "expected" in result.stderr
    assert "expected" not in result.stdout


def test_quiet_hides_the_iterations_only():
    result = ocpkit("solve", "model.py", "--quiet")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "converged" in result.stdout


def test_json_is_all_that_is_printed():
    result = ocpkit("solve", "model.py", "--json")
    record = strict_json(result.stdout)
    assert result.stderr == ""
    assert (record["problem"], record["solver"], record["status"]) == ("cart", "ddp", "converged")
    assert record["success"] is True
    assert len(record["history"]) == record["iterations"] + 1
    assert record["cost"] == record["history"][-1]["cost"]


def test_json_writes_null_where_a_number_does_not_exist():
    result = ocpkit("solve", "model.py:undefined", "--json")
    record = strict_json(result.stdout)
    assert result.exit_code == 1
    assert record["status"] == "invalid_input"
    assert record["cost"] is None


def test_json_of_nested_non_finite_numbers(capsys):
    print_json({"a": [math.nan, {"b": (np.float64(np.inf), 1.5)}]})
    assert strict_json(capsys.readouterr().out) == {"a": [None, {"b": [None, 1.5]}]}


@pytest.mark.parametrize("solver", registry.names())
def test_every_solver_runs_from_the_command_line(solver):
    result = ocpkit("solve", "model.py", "--horizon", "4", "--max-iterations", "3", "-s", solver, "--json")
    record = strict_json(result.stdout)
    assert record["solver"] == ("ddp" if solver == "auto" else solver)
    assert result.exit_code == (0 if record["success"] else 1)


def test_horizon_limit_and_tolerance_reach_the_solver():
    record = strict_json(ocpkit("solve", "model.py", "--horizon", "7", "--max-iterations", "1", "--json").stdout)
    assert (record["horizon"], record["iterations"], record["status"]) == (7, 1, "iteration_limit")
    loose = strict_json(ocpkit("solve", "model.py", "--tolerance", "1e9", "--json").stdout)
    assert (loose["iterations"], loose["status"]) == (0, "converged")


@pytest.mark.slow
def test_time_limit_ends_a_slow_solve():
    result = ocpkit("solve", "model.py:slow", "-s", "gd", "--time-limit", "0.01", "--json")
    assert strict_json(result.stdout)["status"] == "time_limit"
    assert result.exit_code == 1


def test_a_saved_solution_is_a_warm_start():
    assert ocpkit("solve", "model.py", "--save", "first.npz").exit_code == 0
    record = strict_json(ocpkit("solve", "model.py", "--warm-start", "first.npz", "--json").stdout)
    assert record["iterations"] == 0
    assert record["cost"] == Solution.load("first.npz").cost


@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        (["model.py:task", "--animate"], "cart.gif"),
        (["model.py:task", "--animate", "--quiet"], "cart.gif"),
        (["--animate", "model.py:task"], "cart.gif"),
        (["model.py:task", "--animate", "out.gif"], "out.gif"),
        (["model.py:task", "--animate=out.gif", "--quiet"], "out.gif"),
        (["--animate", "out.gif", "model.py:task"], "out.gif"),
        (["model.py", "--plot", "out.png"], "out.png"),
        (["model.py:task", "--plot", "out.svg"], "out.svg"),
    ],
)
def test_pictures_are_written_and_named(arguments, written, monkeypatch):
    monkeypatch.setattr("ocpkit.plotting.plot.animate", lambda solution, task, path: Path(path).write_text("a film"))
    result = ocpkit("solve", *arguments, "--horizon", "5")
    assert result.exit_code == 0
    assert f"wrote {written}" in result.stderr
    assert Path(written).stat().st_size > 0


def test_no_picture_of_a_trajectory_that_is_not_finite():
    result = ocpkit("solve", "model.py:explosive", "--plot", "a.png")
    assert result.exit_code == 1
    assert "not finite" in result.stderr
    assert not Path("a.png").exists()


SOLVE_ERRORS = {
    "unknown task, suggestion": (["pendulun"], "did you mean 'pendulum'"),
    "unknown solver, suggestion": (["model.py", "-s", "dpp"], "did you mean 'ddp'"),
    "missing model file": (["nowhere.py:problem"], "no model file nowhere.py"),
    "missing attribute, suggestion": (["model.py:probelm"], "did you mean 'problem'"),
    "attribute of a wrong type": (["model.py:number"], "gives an object of type int, expected a Problem"),
    "function that needs arguments": (["model.py:draw"], "missing 3 required positional arguments"),
    "function that fails": (["model.py:broken"], "ZeroDivisionError"),
    "syntax error in the file": (["syntax.py"], "SyntaxError"),
    "not a Python file": (["notes.txt:problem"], "not a Python file"),
    "horizon zero": (["model.py", "--horizon", "0"], "--horizon"),
    "horizon of a fixed problem": (["model.py:fixed", "--horizon", "9"], "fixed horizon 5"),
    "function without horizon": (["model.py:slow", "--horizon", "9"], "no argument named horizon"),
    "horizon that is no number": (["model.py", "--horizon", "ten"], "--horizon"),
    "negative iteration limit": (["model.py", "--max-iterations", "-1"], "--max-iterations"),
    "time limit zero": (["model.py", "--time-limit", "0"], "time_limit must be a positive number"),
    "tolerance NaN": (["model.py", "--tolerance", "nan"], "must be a positive number"),
    "constraints that the solver cannot treat": (
        ["model.py:constrained", "-s", "ddp"],
        "use the solver 'al' or 'ipopt'",
    ),
    "missing output folder": (["model.py", "--save", "no/a.npz"], "there is no folder no"),
    "output is a folder": (["model.py", "--plot", "folder.png"], "it is a folder"),
    "picture of unknown format": (["model.py", "--plot", "a.xyz"], "ends in .png, .pdf or .svg"),
    "animation of unknown format": (["model.py:task", "--animate", "a.avi"], "ends in .gif, .html or .mp4"),
    "animation without a drawing": (["model.py", "--animate"], "no drawing to animate"),
    "missing warm start": (["model.py", "--warm-start", "no.npz"], "no.npz: No such file"),
    "warm start is a folder": (["model.py", "--warm-start", "folder.png"], "folder.png: Is a directory"),
    "warm start is text": (["model.py", "--warm-start", "notes.txt"], "not a solution saved by ocpkit"),
    "warm start is an array": (["model.py", "--warm-start", "array.npy"], "not a solution saved by ocpkit"),
    "warm start is truncated": (["model.py", "--warm-start", "short.npz"], "not a solution saved by ocpkit"),
    "warm start is damaged": (["model.py", "--warm-start", "damaged.npz"], "not a solution saved by ocpkit"),
    "warm start of another horizon": (["model.py", "--warm-start", "other.npz"], "has 5 entries, expected 20"),
    "two targets": (["model.py", "model.py"], "unexpected extra argument"),
    "unknown option": (["model.py", "--slover", "ddp"], "--slover"),
}


@pytest.mark.parametrize(("arguments", "message"), SOLVE_ERRORS.values(), ids=SOLVE_ERRORS)
def test_wrong_input_ends_in_one_clear_message_and_status_2(arguments, message):
    Path("folder.png").mkdir()
    Path("syntax.py").write_text("def problem(:\n")
    Path("notes.txt").write_text("hello")
    np.save("array.npy", np.zeros(3))
    if "npz" in "".join(arguments):
        ocpkit("solve", "model.py:fixed", "--save", "other.npz")
        data = Path("other.npz").read_bytes()
        Path("short.npz").write_bytes(data[: len(data) // 2])
        Path("damaged.npz").write_bytes(data[:60] + bytes(byte ^ 255 for byte in data[60:120]) + data[120:])
    result = ocpkit("solve", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def test_missing_ffmpeg_is_told_before_solving(monkeypatch):
    monkeypatch.setattr("matplotlib.animation.FFMpegWriter.isAvailable", lambda: False)
    result = ocpkit("solve", "model.py:slow", "--animate", "a.mp4")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "needs the program ffmpeg" in result.stderr


def test_missing_matplotlib_is_told_before_solving(monkeypatch):
    monkeypatch.delitem(sys.modules, "ocpkit.plotting.plot", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = ocpkit("solve", "model.py:slow", "--plot", "a.png")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "pip install 'ocpkit[plot]'" in result.stderr


def test_folder_without_permission_is_told_before_solving(monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    result = ocpkit("solve", "model.py:slow", "--save", "a.npz")
    assert result.exit_code == 2
    assert "no permission" in result.stderr


def test_the_live_table_keeps_the_last_iterations():
    table = IterationTable("title", visible=False)
    for i in range(100):
        table(Iteration(index=i, cost=1.0))
    assert [row.index for row in table.rows] == list(range(100 - ROWS, 100))
    assert table.table().row_count == ROWS


def test_list_shows_tasks_and_solvers():
    record = strict_json(ocpkit("list", "--json").stdout)
    sizes = {task["name"]: (task["n"], task["m"]) for task in record["tasks"]}
    assert sizes["pendulum"] == (2, 1)
    assert [solver["name"] for solver in record["solvers"]] == list(registry.names())
    assert all(entry["summary"] for entry in record["tasks"] + record["solvers"])
    text = ocpkit("list").stdout
    assert "pendulum" in text
    assert "fatrop" in text


@pytest.mark.slow
def test_a_classic_task_is_solved_and_filmed_by_name():
    result = ocpkit("solve", "double-integrator", "--json", "--animate", "--plot", "a.png")
    assert strict_json(result.stdout)["success"]
    assert result.stderr == "wrote a.png\nwrote double-integrator.gif\n"
    assert Path("double-integrator.gif").read_bytes()[:6] == b"GIF89a"


@pytest.mark.parametrize(("name", "solver"), [("double-integrator", "ddp"), ("bryson-denham", "pdip")])
def test_a_task_says_which_solver_it_takes(name, solver):
    short = [name, "--horizon", "5", "--json"]
    assert strict_json(ocpkit("solve", *short).stdout)["solver"] == solver
    assert strict_json(ocpkit("solve", *short, "-s", "sqp").stdout)["solver"] == "sqp"
    records = {task["name"]: task for task in strict_json(ocpkit("list", "--json").stdout)["tasks"]}
    assert records[name]["solver"] == ("auto" if solver == "pdip" else solver)


def test_an_own_model_with_control_bounds_is_solved_by_default():
    """x + u three times with |u| ≤ 0.1 from 1: the bound holds at every stage, so that x_T = 0.7."""
    record = strict_json(ocpkit("solve", "model.py:bounded", "--json").stdout)
    assert (record["solver"], record["status"]) == ("ddp", "converged")
    assert record["cost"] == pytest.approx(0.7**2 + 3 * 0.1**2)


def test_compare_shows_also_what_did_not_work():
    result = ocpkit("compare", "model.py:constrained", "-s", "gd", "-s", "ipopt", "--max-iterations", "0", "--json")
    record = strict_json(result.stdout)
    unsupported, limited = record["results"]
    assert result.exit_code == 0
    assert (unsupported["solver"], unsupported["status"], unsupported["cost"]) == ("gd", "unsupported", None)
    assert "terminal constraints" in unsupported["note"]
    assert (limited["solver"], limited["status"], limited["iterations"]) == ("ipopt", "iteration limit", 0)
    assert {"machine", "python", "numpy", "casadi", "ocpkit"} <= record.keys()


def test_compare_runs_all_solvers_by_default():
    result = ocpkit("compare", "model.py:fixed", "--max-iterations", "2", "--time-limit", "9", "--json")
    solvers = [entry["solver"] for entry in strict_json(result.stdout)["results"]]
    assert result.exit_code == 0
    assert solvers == [name for name in registry.names() if name not in ("auto", "ilqg", "ip", "sqp")]


def test_compare_runs_the_solver_of_noise_where_there_is_noise():
    result = ocpkit("compare", "model.py:noisy", "--json")
    entries = strict_json(result.stdout)["results"]
    assert {entry["solver"]: entry["status"] for entry in entries}["ilqg"] == "converged"
    assert all("noise of stage 0" in entry["note"] for entry in entries if entry["solver"] != "ilqg")


def test_compare_writes_markdown():
    result = ocpkit("compare", "model.py", "model.py:fixed", "-s", "ddp", "-s", "ipopt", "--markdown", "table.md")
    rows = [line for line in Path("table.md").read_text().splitlines() if line.startswith("|")]
    assert result.exit_code == 0
    assert [row.split("|")[1:4] for row in rows[2:]] == [
        [f" {task} ", f" {solver} ", " converged "] for task in ("model", "fixed") for solver in ("ddp", "ipopt")
    ]
    assert "iterations" in result.stdout


@pytest.mark.parametrize("arguments", [["pendulun"], ["model.py", "-s", "dpp"], ["model.py", "--markdown", "no/a.md"]])
def test_compare_refuses_wrong_input(arguments):
    assert ocpkit("compare", *arguments).exit_code == 2


def test_doctor_reports_parts_and_remedies(monkeypatch):
    monkeypatch.setattr(doctor, "program", lambda *names, flag="": None)
    broken = doctor.Finding("C compiler", "cc 1.0", "C", "mend it", works=False)
    monkeypatch.setattr(doctor, "_compiler", lambda: broken)
    monkeypatch.delenv("OCPKIT_DATA", raising=False)
    findings = {finding["name"]: finding for finding in strict_json(ocpkit("doctor", "--json").stdout)}
    assert findings["numpy"]["found"] == np.__version__
    assert findings["casadi: ipopt"]["found"]
    assert findings["ffmpeg"]["found"] is None
    text = ocpkit("doctor").stdout
    assert "for .mp4 animations: install ffmpeg" in text
    assert "for C: mend it" in text
    assert "OCPKIT_DATA" in text


BROKEN = '#!/bin/sh\n[ "$1" = --version ] && echo broken 1.0 && exit\nexit 1\n'
SILENT = '#!/bin/sh\n[ "$1" = --version ] && echo silent 1.0\nexit 0\n'


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "flags", "found", "works"),
    [
        ("", "", "", True),
        ("", "-ffast-math", "", False),
        ("", "-no-such-flag", "", False),
        ("", "'", None, True),
        ("no-such-compiler", "", None, True),
        (BROKEN, "", "broken 1.0", False),
        (SILENT, "", "silent 1.0", False),
    ],
    ids=["as found", "fast math", "unknown flag", "unreadable flags", "missing", "failing", "writing nothing"],
)
def test_doctor_tries_the_compiler_on_a_solver(program, flags, found, works, tmp_path, monkeypatch):
    if program.startswith("#!"):
        (tmp_path / "compiler").write_text(program)
        (tmp_path / "compiler").chmod(0o700)
        program = str(tmp_path / "compiler")
    monkeypatch.setenv("CC", program)
    monkeypatch.setenv("OCPKIT_CFLAGS", flags)
    finding = doctor._compiler()
    assert (finding.found is None) == (found is None)
    assert (finding.found or "").startswith(found or "")
    assert finding.works == works
    assert bool(finding.remedy) == (found is None or not works)


def test_doctor_survives_a_solver_that_crashes(monkeypatch):
    monkeypatch.setattr(doctor, "TRIAL", "import os; os.abort()")
    finding = doctor._compiler()
    assert not finding.works
    assert str(int(signal.SIGABRT)) in finding.remedy


def test_version_and_help():
    import ocpkit as package

    assert ocpkit("--version").stdout == f"ocpkit {package.__version__}\n"
    for command in ("list", "solve", "compare", "doctor"):
        assert command in ocpkit("--help").stdout
        assert ocpkit(command, "--help").exit_code == 0


def run(*arguments, **options):
    script = shutil.which("ocpkit", path=str(Path(sys.executable).parent))
    assert script is not None
    return subprocess.Popen([script, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["model.py"], 0), (["model.py", "--max-iterations", "0"], 1), (["model.py:nothing"], 2)],
)
def test_exit_status_of_the_console_script(arguments, status):
    process = run("solve", *arguments)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == status
    assert "Traceback" not in output + errors


def interrupt(process):
    """Wait until the model of `slow` has been called often, and press Ctrl-C."""
    deadline = time.monotonic() + 300
    while not Path("running").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=300)


@pytest.mark.slow
def test_interrupt_returns_and_saves_the_best_iterate():
    process = run("solve", "model.py:slow", "--save", "best.npz", "--json")
    output, errors = interrupt(process)
    assert process.returncode == 130
    assert strict_json(output)["status"] == "interrupted"
    assert errors == "saved best.npz\n"
    assert Solution.load("best.npz").states.shape == (101, 1)


@pytest.mark.slow
def test_an_interrupted_closed_loop_writes_what_happened():
    process = run("mpc", "model.py:slow_steps", "--ticks", "9999", "--log", "log.csv", "--json")
    output, errors = interrupt(process)
    assert process.returncode == 130
    assert strict_json(output)["broken_off"] == "interrupted"
    assert errors == "wrote log.csv\n"


@pytest.mark.parametrize("module", ["typer", "ocpkit.cli.solve", "numpy"])
def test_ctrl_c_while_the_commands_are_imported(module):
    code = f"""
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
from ocpkit.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code, "list"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_help_imports_nothing_heavy():
    heavy = "{'torch', 'matplotlib', 'scipy.optimize'} & set(sys.modules)"
    code = f"import sys, ocpkit.cli.commands; sys.exit(str({heavy}) if {heavy} else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_mpc_closes_the_loop_and_writes_what_happened():
    line = ["mpc", "pendulum", "--ticks", "12", "--measurement-noise", "0.01", "--log", "l.csv", "--plot", "l.png"]
    result = ocpkit(*line, "--json")
    record = strict_json(result.stdout)
    assert record["ticks"] == record["optimal"] + record["improving"] == 12
    assert result.stderr == "wrote l.csv\nwrote l.png\n"
    assert len(Path("l.csv").read_text().splitlines()) == 13
    following = strict_json(ocpkit("mpc", "pendulum", "--feedback", "--json").stdout)
    plan = strict_json(ocpkit("solve", "pendulum", "--json").stdout)
    assert following["cost"] == pytest.approx(plan["cost"], rel=1e-6)


def test_mpc_refuses_a_mismatch_of_tasks_without_a_plant():
    result = ocpkit("mpc", "pendulum", "--mass", "1.2")
    assert result.exit_code == 2
    assert "pendulum has no plant whose mass and friction can differ" in result.stderr
