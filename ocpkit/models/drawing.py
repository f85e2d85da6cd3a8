"""Pieces of the tasks' drawings: each puts one thing on matplotlib axes, sizes in data units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

BODY, LINK, ACCENT, THRUST, GOAL, GROUND = "#3b6ea5", "#444444", "#d1495b", "#f4a259", "#2a9d5c", "#999999"
"""Colors: bodies, rods, what moves or matters, jets, goals, the ground."""


def rod(axes: Any, *points: Sequence[float], width: float = 5.0, color: str = LINK) -> None:
    """Draw a chain of rods through the points (in the plane or in space); `width` in printer's points."""
    axes.plot(*zip(*points), color=color, linewidth=width, solid_capstyle="round", solid_joinstyle="round")


def disc(axes: Any, center: Sequence[float], radius: float, color: str = ACCENT) -> None:
    """Draw a filled circle."""
    angle = np.linspace(0, 2 * np.pi, 40)
    axes.fill(center[0] + radius * np.cos(angle), center[1] + radius * np.sin(angle), color=color, zorder=3)


def box(axes: Any, center: Sequence[float], size: Sequence[float], angle: float = 0.0, color: str = BODY) -> None:
    """Draw a filled rectangle of (length, width), turned counter-clockwise by `angle` [rad] about its center."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * np.asarray(size) / 2
    axes.fill(*placed(corners, center, angle).T, color=color)


def placed(points: Any, center: Sequence[float], angle: float) -> Any:
    """Turn points (k, 2) of a body counter-clockwise by `angle` [rad] and move its origin to `center`."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.asarray(points) @ np.array([[cos, sin], [-sin, cos]]) + np.asarray(center)


def arrow(axes: Any, start: Sequence[float], step: Sequence[float], color: str = ACCENT) -> None:
    """Draw an arrow from `start` along `step`."""
    axes.annotate(
        "",
        xy=(start[0] + step[0], start[1] + step[1]),
        xytext=tuple(start),
        arrowprops={"arrowstyle": "-|>", "color": color, "linewidth": 1.8, "shrinkA": 0, "shrinkB": 0},
    )


def gauge(axes: Any, value: float, lower: float, upper: float, label: str) -> None:
    """Show a bounded control at the foot of the picture: where it stands between its bounds; red on a bound."""
    left, right, height = 0.3, 0.7, 0.04
    share = (value - lower) / (upper - lower)
    color = ACCENT if min(share, 1 - share) < 1e-2 else BODY
    for places, style in (
        ([left, right], {"color": GROUND, "linewidth": 2.0, "marker": "|", "markersize": 12}),
        ([left + share * (right - left)], {"color": color, "marker": "s", "markersize": 8}),
    ):
        axes.plot(places, [height] * len(places), transform=axes.transAxes, **style)
    for place, bound, side in ((left, lower, "right"), (right, upper, "left")):
        text = f"{label} {bound:g}  " if side == "right" else f"  {bound:g}"
        axes.annotate(text, (place, height), xycoords="axes fraction", ha=side, va="center", fontsize="small")


def phase_plane(axes: Any, rates: Callable[[Any, Any], Any], x: Sequence[float], u: Any, view: Sequence[float]) -> None:
    """Draw the flow ẋ = rates(x, u) under the present control, the state in it, and rest."""
    left, right, bottom, top = view
    across, along = np.linspace(left, right, 17)[1:-1], np.linspace(bottom, top, 17)[1:-1]
    grid = np.array([[(a, b) for a in across] for b in along])
    flow = np.array([[rates(np.array(place), u) for place in row] for row in grid])
    flow /= 1e-9 + np.linalg.norm(flow, axis=-1, keepdims=True)
    axes.set_aspect("auto")
    axes.quiver(across, along, flow[..., 0], flow[..., 1], color=GROUND, width=0.003, scale=28, pivot="mid")
    goal(axes, 0.0, 0.0, label="rest")
    axes.plot(*([value] for value in x), marker="o", markersize=10, color=ACCENT)


def ground(axes: Any, height: float = 0.0) -> None:
    """Draw a horizontal line."""
    axes.axhline(height, color=GROUND, linewidth=1.0, zorder=0)


def goal(axes: Any, *place: float, label: str = "goal") -> None:
    """Mark a point, in the plane or in space, with a labeled cross."""
    axes.plot(*([value] for value in place), marker="x", markersize=9, markeredgewidth=2.2, color=GOAL)
    if len(place) == 2:
        axes.annotate(label, place, xytext=(12, 8), textcoords="offset points", color=GOAL, annotation_clip=True)
    else:
        axes.text(*place, f"  {label}", color=GOAL)
