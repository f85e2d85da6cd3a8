# %% [markdown]
"""Draw what travels backward and forward (after Fig. 1 of the paper): ``python examples/two_passes.py [folder]``.

Back-propagation sends a vector backward and adds one vector per stage to the controls. DDP sends a vector
and a matrix backward, keeps an affine policy per stage, and needs a second forward pass to apply it.
"""

# %%
from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure

GRAY, BLUE, RED = "0.35", "tab:blue", "tab:red"
STAGES = ["t-1", "t", "t+1"]
SPACING = 3.4


# %% [markdown]
# ## Drawing a chain of stages


# %%
def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str, bend: float = 0.0) -> None:
    style = {"arrowstyle": "-|>", "color": color, "lw": 1.8, "connectionstyle": f"arc3,rad={bend}"}
    axes.annotate("", end, start, arrowprops=style)


def draw_chain(axes: Axes, title: str, backward: str, update: str, color: str, second_pass: str | None) -> None:
    """Three stages: states on top, the backward signal below, the update of each control at the bottom."""
    for i, t in enumerate(STAGES):
        x = i * SPACING
        axes.text(x, 1, f"$f_{{{t}}}$", ha="center", va="center", fontsize=13, bbox={"boxstyle": "round", "fc": "0.93"})
        axes.text(x, -1.2, update.replace("#", t), ha="center", va="center", color=color, fontsize=10)
        arrow(axes, (x, -0.95), (x, 0.7), color)
        arrow(axes, (x - SPACING + 0.35, 1.0), (x - 0.35, 1.0), GRAY)
        axes.text(x - SPACING / 2, 1.1, f"$x_{{{t}}}$", ha="center", va="bottom", color=GRAY)
        arrow(axes, (x - 0.35, 0.8), (x - SPACING + 0.35, 0.8), color, bend=-0.25)
        axes.text(x - SPACING / 2, 0.2, backward.replace("#", t), ha="center", va="top", color=color, fontsize=10)
        if second_pass:
            arrow(axes, (x - SPACING + 0.35, 1.25), (x - 0.35, 1.25), RED, bend=-0.35)
            axes.text(x - SPACING / 2, 2.0, second_pass.replace("#", t), ha="center", color=RED, fontsize=10)
    axes.set_title(title, loc="left", fontsize=11)
    axes.set(xlim=(-SPACING - 0.2, 2 * SPACING + 1.2), ylim=(-1.5, 2.3 if second_pass else 1.6))
    axes.axis("off")


# %% [markdown]
# ## The two methods


# %%
def picture() -> Figure:
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    top, bottom = figure.subplots(2, 1, height_ratios=[3.1, 3.8])
    gradient, value = r"$\nabla_{x_{#}}\,J$", r"$V_x^{#},\ V_{xx}^{#}$"
    draw_chain(top, "Back-propagation and gradient descent", gradient, r"$u_{#} - \eta\,\nabla_{u_{#}}\,J$", BLUE, None)
    policy, change = r"$u_{#} + k_{#} + K_{#}\,\delta x_{#}$", r"$\hat x_{#},\ \delta x_{#} = \hat x_{#} - x_{#}$"
    draw_chain(bottom, "Differential dynamic programming", value, policy, RED, change)
    return figure


def main(folder: Annotated[Path, typer.Argument()] = Path("docs/images")) -> None:
    """Write two-passes.png."""
    folder.mkdir(parents=True, exist_ok=True)
    picture().savefig(folder / "two-passes.png", dpi=110, metadata={"Software": None})
    print(f"wrote {folder / 'two-passes.png'}")


# %%
if __name__ == "__main__":
    typer.run(main)
