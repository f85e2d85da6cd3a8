"""Old import paths lead to the new homes, with a warning that names them."""

import subprocess
import sys
from importlib import import_module

import pytest

import ocpkit
from ocpkit.moved import MOVED, NAMES


@pytest.mark.parametrize("old", sorted(MOVED))
def test_an_old_module_is_the_new_one(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(DeprecationWarning, match=f"{old} has moved to {MOVED[old]}"):
        assert import_module(old) is import_module(MOVED[old])


@pytest.mark.parametrize(
    ("package", "name", "home"),
    [
        ("ocpkit.problem", "Problem", "ocpkit.problem.problem"),
        ("ocpkit.problem", "Stage", "ocpkit.problem.stage"),
        ("ocpkit.solution", "Status", "ocpkit.solution.solution"),
        ("ocpkit.solvers", "InteriorPoint", "ocpkit.solvers.constrained.interior_point"),
        ("ocpkit.solvers.ddp", "DDP", "ocpkit.solvers.ddp.ddp"),
        ("ocpkit.solvers.nlp", "IPOPT", "ocpkit.solvers.nlp.nlp"),
        ("ocpkit_nn.optim", "DDPNOpt", "ocpkit_nn.optim.ddpnopt"),
    ],
)
def test_a_module_that_is_a_package_now_still_has_its_names(package: str, name: str, home: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"{package}\.{name} has moved to {home}\.{name}"):
        assert getattr(import_module(package), name) is getattr(import_module(home), name)


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in NAMES.items() for name in names])
def test_a_name_that_has_left_a_module_is_still_there(module: str, name: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"has moved to {NAMES[module][name].replace(':', '.')}"):
        assert callable(getattr(import_module(module), name))
    with pytest.raises(AttributeError, match=f"module '{module}' has no attribute 'DPP'"):
        _ = import_module(module).DPP


def test_the_warning_points_at_the_import() -> None:
    program = "import warnings; warnings.simplefilter('always')\nfrom ocpkit.mpc import MPC"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stderr.startswith("<string>:2: DeprecationWarning: ocpkit.mpc has moved to ocpkit.control.mpc")


def test_pictures_are_functions_now() -> None:
    task = ocpkit.models.get("double-integrator")
    problem = task.build()
    solution = ocpkit.DDP().solve(problem)
    with pytest.warns(DeprecationWarning, match=r"Solution\.plot has moved to ocpkit\.plot_solution"):
        figure = solution.plot(task, problem=problem)
    assert figure.get_suptitle() == ocpkit.plot_solution(solution, task, problem=problem).get_suptitle()
