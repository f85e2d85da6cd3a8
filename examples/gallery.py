"""Draw the gallery: an animation of every task's solution, and the page docs/gallery.md around them.

python examples/gallery.py                  # all tasks (robots need the extra "robots"), and the page
python examples/gallery.py cartpole         # one animation only
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageSequence

from ocpkit import Solution, animate, models, registry
from ocpkit.models.task import Task
from ocpkit_nn.experiments.harness import ITEMS, find

DOCS = Path(__file__).resolve().parents[1] / "docs"
SIZE = 320, 256
FRAME_MILLISECONDS = 80
HEAD = """# Gallery

Made by `python examples/gallery.py`: each task solved from its own guess by the solver that `ocpkit solve TASK` takes.
`ocpkit solve TASK --animate` makes the same film, larger; `--plot TASK.png` draws the curves.

## Tasks
"""
ROBOTS = """
## Robots

From URDF files and in MuJoCo ([how](robots.md)).
"""
EXAMPLES = """
## Examples

Each picture has its script beside it in `examples/`. `python examples/notebooks.py FOLDER` writes the scripts, and the
tutorials, as Jupyter notebooks (`pip install jupytext jupyterlab`).
"""
EXPERIMENTS = """
## Experiments

The first figure of each of the [paper's experiments, and of those beyond it](reproduction.md), drawn by
`ocpkit reproduce ITEM`.
"""
SCRIPTS = {
    "two_passes": "Back-propagation and DDP: what goes backward, what goes forward",
    "feedback_toy": "A valley of the loss, with feedback and without",
    "many_optimizers": "Six methods as one recursion with other parts",
    "monte_carlo": "A plan under noise, open loop and with DDP's feedback",
    "tune_mpc": "A controller tuned by the gradient of its closed loop",
    "learn_cost": "A cost learnt from demonstrations",
    "estimator": "A pole held up by what a Kalman filter makes of noisy angles",
    "multi_start": "Hundreds of guesses at once: what the best one finds",
}


def main(folder: Path, tasks: Sequence[str] = ()) -> None:
    """Write `TASK.webp` for each task into `folder`; with no task named, all of them and the page."""
    folder.mkdir(parents=True, exist_ok=True)
    captions = {name: film(models.get(name), folder) for name in tasks or (*models.names(), *models.robots())}
    if not tasks:
        (DOCS / "gallery.md").write_text("".join(page(captions)), encoding="utf-8")


def film(task: Task, folder: Path) -> str:
    """Solve and film a task; return its caption."""
    solution: Solution = registry.make(task.solver).solve(task.build())
    assert solution.success or task.name in models.robots(), f"{task.name}: {solution.status.value}"
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "film.gif"
        animate(solution, task, path)
        shrink(path, folder / f"{task.name}.webp")
    effort = f"{solution.iterations} iteration{'s' * (solution.iterations != 1)}"
    stopped = "" if solution.success else f" ({solution.status.name.lower().replace('_', ' ')})"
    result = f"`{task.solver}`, {effort}{stopped}, J = {solution.cost:.4g}"
    return f"![{task.summary}](images/gallery/{task.name}.webp)\n**{task.name}**: {task.summary}. {result}"


def shrink(source: Path, target: Path) -> None:
    """Write every other frame at `SIZE` as animated WebP."""
    with Image.open(source) as gif:
        frames = [frame.convert("RGB").resize(SIZE, Image.Resampling.LANCZOS) for frame in ImageSequence.Iterator(gif)]
    first, *rest = frames[::2]
    first.save(target, save_all=True, append_images=rest, duration=FRAME_MILLISECONDS, loop=0, quality=60, method=4)


def page(captions: Mapping[str, str]) -> Iterator[str]:
    """Lines of docs/gallery.md."""
    yield from (HEAD, *pictures(captions[name] for name in models.names()))
    yield from (ROBOTS, *pictures(captions[name] for name in models.robots()))
    scripts = (
        f"![{caption}](images/{script.replace('_', '-')}.png)\n**examples/{script}.py**: {caption}"
        for script, caption in SCRIPTS.items()
    )
    yield from (EXAMPLES, *pictures(scripts))
    figures = {name: sorted((DOCS / "results" / name).glob("*.png")) for name in ITEMS}
    items = (
        f"![{find(name).PAGE.title}]({found[0].relative_to(DOCS).as_posix()})\n**{name}**: {find(name).PAGE.title}"
        for name, found in figures.items()
        if found
    )
    yield from (EXPERIMENTS, *pictures(items))


def pictures(captions: Iterable[str]) -> Iterator[str]:
    """Lines of a grid of pictures."""
    yield '\n<div class="gallery" markdown>\n'
    yield from (f"\n{caption}\n" for caption in captions)
    yield "\n</div>\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", help="names of `ocpkit list`; none: all, and the page")
    parser.add_argument("--out", type=Path, default=DOCS / "images" / "gallery")
    options = parser.parse_args()
    main(options.out, options.tasks)
