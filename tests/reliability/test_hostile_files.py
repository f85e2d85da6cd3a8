"""Files from somebody else: what is loaded is data, what is damaged is refused, names stay names."""

from __future__ import annotations

import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ocpkit import DDP, Problem, ProblemError, Solution
from ocpkit.cli.commands import app
from ocpkit.control.export import export_c
from ocpkit.robots.urdf import essentials
from ocpkit_nn.data import load
from ocpkit_nn.training import checkpoint
from ocpkit_nn.training.networks import build


class Bomb:
    """Writes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def problem(name: str = "small") -> Problem:
    return Problem.from_functions(
        dynamics=lambda x, u: 0.9 * x + u,
        cost=lambda x, u: x[0] ** 2 + u[0] ** 2,
        terminal_cost=lambda x: x[0] ** 2,
        x0=[1.0],
        horizon=3,
        control_size=1,
        name=name,
    )


# ------------------------------------------------------------------------------------------------- pickles
def as_pickle(path: Path, bomb: Bomb) -> None:
    path.write_bytes(pickle.dumps(bomb))


def as_npz(path: Path, bomb: Bomb) -> None:
    with path.open("wb") as file:
        np.savez(file, meta=np.array([bomb], dtype=object), states=np.array([bomb], dtype=object))


def as_npy(path: Path, bomb: Bomb) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([bomb], dtype=object))


def as_torch(path: Path, bomb: Bomb) -> None:
    torch.save({"format": checkpoint.FORMAT, "state_dict": bomb, "model": "fcn"}, path)


def as_old_torch(path: Path, bomb: Bomb) -> None:
    torch.save({"format": checkpoint.FORMAT, "model": bomb}, path, _use_new_zipfile_serialization=False)


FORMS = [as_pickle, as_npz, as_npy, as_torch, as_old_torch]


@pytest.mark.parametrize("write", FORMS)
def test_no_file_is_run_by_loading_it(write: Callable[[Path, Bomb], None], tmp_path: Path) -> None:
    bomb = Bomb(tmp_path / "executed")
    for name in ("solution.npz", "model.pt", checkpoint.LATEST, "data.npz"):
        write(tmp_path / name, bomb)
    pickle.loads(pickle.dumps(bomb))
    assert bomb.path.exists()  # it does explode
    bomb.path.unlink()
    for loading in (
        lambda: Solution.load(tmp_path / "solution.npz"),
        lambda: checkpoint.load_model(tmp_path / "model.pt"),
        lambda: checkpoint.load(tmp_path),
        lambda: load(str(tmp_path / "data.npz")),
    ):
        with pytest.raises(ValueError, match=r"data|damaged|loaded|archive"):
            loading()
        assert not bomb.path.exists()


def test_a_model_that_names_a_file_runs_it_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(
        "from pathlib import Path\nfrom torch import nn\nPath('executed').touch()\n"
        "def net(data):\n    return nn.Linear(13, data.classes)\n"
    )
    wine = load("wine")
    checkpoint.save_model(Path("model.pt"), build("net.py:net", wine), "net.py:net", wine)
    Path("executed").unlink()
    with pytest.raises(ProblemError, match="run_files=True"):
        checkpoint.load_model("model.pt")
    assert not Path("executed").exists()
    assert checkpoint.load_model("model.pt", run_files=True)(torch.zeros(1, 13)).shape == (1, 3)


def test_a_file_called_like_a_task_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("pendulum.py", "ocpkit.py", "problem.py"):
        Path(name).write_text("open('executed', 'w').close()\n")
    assert CliRunner().invoke(app, ["solve", "double-integrator", "--quiet"]).exit_code == 0
    assert CliRunner().invoke(app, ["list"]).exit_code == 0
    assert CliRunner().invoke(app, ["solve", "problem"]).exit_code == 2  # a name is not a path
    assert not Path("executed").exists()
    CliRunner().invoke(app, ["solve", "problem.py"])
    assert Path("executed").exists()


# ------------------------------------------------------------------------------------------------- damage
def test_every_damaged_solution_is_refused_or_equal(tmp_path: Path) -> None:
    """Cut off anywhere, or a byte flipped anywhere; the checksums of a .zip leave only its time stamps free."""
    path, solution = tmp_path / "solution.npz", DDP(engine="numpy").solve(problem())
    solution.save(path)
    content, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    cuts = [content[:size] for size in range(0, len(content), len(content) // 60)]
    flips = [bytearray(content) for _ in range(200)]
    for flip in flips:
        flip[rng.integers(len(content))] ^= int(rng.integers(1, 256))
    for damaged in (*cuts, *flips):
        path.write_bytes(damaged)
        try:
            loaded = Solution.load(path)
        except ProblemError:
            refused += 1
        else:
            assert np.array_equal(loaded.states, solution.states)
            assert np.array_equal(loaded.controls, solution.controls)
            assert loaded.cost == solution.cost
    assert refused > len(cuts) + 100


def test_every_damaged_model_is_refused_or_equal(tmp_path: Path) -> None:
    path, wine = tmp_path / "model.pt", load("wine")
    model = build("fcn", wine).eval()
    checkpoint.save_model(path, model, "fcn", wine)
    content, rng, expected = path.read_bytes(), np.random.default_rng(0), model(wine.test_inputs[:3])
    cuts = [content[:size] for size in range(0, len(content), len(content) // 20)]
    flips = [bytearray(content) for _ in range(60)]
    for flip in flips:
        flip[rng.integers(len(content))] ^= int(rng.integers(1, 256))
    refused = 0
    for damaged in (*cuts, *flips):
        path.write_bytes(damaged)
        try:
            loaded = checkpoint.load_model(path)
        except ProblemError:
            refused += 1
        else:
            assert torch.equal(loaded(wine.test_inputs[:3]), expected)
    assert refused > len(cuts) + 30


# --------------------------------------------------------------------------------------------------- names
HOSTILE = (
    "*/ int injected; /*",
    '"; int injected; "',
    "end\n#error injected\n",
    "trigraph ??/\nint injected;",
    "backslash \\\nint injected;",
    "$injected ${injected}",
    "// */ int injected;",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_the_name_of_a_problem_stays_in_a_comment(name: str, tmp_path: Path) -> None:
    for path in export_c(problem(name), DDP(), tmp_path, "safe"):
        if path.suffix in (".c", ".h"):
            flags = ["-std=gnu11", "-trigraphs", "-fpreprocessed", "-E", "-P"]
            code = subprocess.run(["cc", *flags, str(path)], capture_output=True, text=True, check=True).stdout
            assert "injected" not in code
            assert "safe" in code


@pytest.mark.parametrize("name", ["../../evil", 'a"b; int injected', "a\nb", "", "main", "closed_loop", "ü", "3d"])
def test_the_name_of_an_export_is_an_identifier_in_its_folder(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "inner" / "folder"
    paths = export_c(problem(), DDP(), folder, name)
    assert len(set(paths)) == 5
    assert {path.name for path in folder.iterdir()} == {path.name for path in paths}
    assert [path.name for path in tmp_path.iterdir()] == ["inner"]
    header = next(path for path in paths if path.suffix == ".h")
    assert header.stem.isascii()
    assert header.stem.isidentifier()
    subprocess.run(["cc", "-std=gnu11", "-fsyntax-only", str(folder / "main.c")], check=True)


@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
@pytest.mark.slow
def test_an_export_called_main_builds(tmp_path: Path) -> None:
    export_c(problem(), DDP(), tmp_path, "main")
    for command in (["cmake", "-S", ".", "-B", "build"], ["cmake", "--build", "build"], ["./build/main__main"]):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)


# --------------------------------------------------------------------------------------------------- robots
ENTITIES = {
    "a billion laughs": "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10 if i else "ha"}">' for i in range(10)),
    "another file": '<!ENTITY a9 SYSTEM "file:///etc/passwd">',
}


@pytest.mark.parametrize("entities", ENTITIES.values(), ids=ENTITIES)
def test_a_urdf_can_neither_grow_nor_read_files(entities: str, tmp_path: Path) -> None:
    """By the parser that Python brings: expat stops amplification since 2.4.1, and ElementTree opens no other file."""
    path = tmp_path / "robot.urdf"
    path.write_text(f"<!DOCTYPE robot [{entities}]><robot name='x'><link name='x'>&a9;</link></robot>")
    with pytest.raises(ProblemError, match="cannot be read as a URDF"):
        essentials(path, None)
