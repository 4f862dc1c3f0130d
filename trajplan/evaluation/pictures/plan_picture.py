"""Pictures of plans: beams over a maze, or predicted against realised dimensions over time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from trajplan.data.info import DatasetInfo
from trajplan.errors import DataError
from trajplan.evaluation.pictures.fan import imagined_paths
from trajplan.evaluation.pictures.maze import BACKGROUND, BALL, BEST, GOAL, WALL, MazeMap, plan_beams, score_colours
from trajplan.evaluation.pictures.trace import Trace, dimension_name, most_varying

MAX_DIMENSIONS = 12
SHOWN_STEPS = 45
_PREDICTED, _REALISED = "#c2410c", "#1f2937"


def save_plan_picture(trace: Trace, info: DatasetInfo, path: Path) -> None:
    """The picture that suits the environment: `maze_figure` for a maze, else `prediction_figure`."""
    figure = maze_figure(trace) if trace.maze is not None else prediction_figure(trace, info)
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as the file type of the path's suffix, without a display."""
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=130)


def maze_figure(trace: Trace, panels: int = 4) -> Figure:
    """Plans of one maze episode from its start until the goal, a panel each.

    Walls, start and goal, the way walked so far, and the plan's best beam, bold. Around it, thin and coloured by their
    scores: the paths that the model imagines from there (`imagined_paths`), or the plan's other beams where the policy
    has no such model.
    """
    assert trace.maze is not None
    steps = _plan_steps(trace)
    places = np.array(trace.observations)[:, trace.maze.position]
    goals = np.array(trace.goal_places)
    reached = np.flatnonzero(np.linalg.norm(places - goals, axis=1) <= trace.maze.goal_radius)
    before = [step for step in steps if len(reached) == 0 or step < reached[0]] or steps[:1]
    chosen = [before[round(i)] for i in np.linspace(0, len(before) - 1, min(panels, len(before)))]
    rows, columns = trace.maze.walls.shape
    figure = Figure(figsize=(3.2 * len(chosen), 3.2 * rows / columns + 0.75), layout="constrained")
    for axes, step in zip(figure.subplots(1, len(chosen), squeeze=False)[0], chosen, strict=True):
        _draw_walls(axes, trace.maze)
        fan = imagined_paths(trace, step)
        draw_maze_plan(axes, trace.maze, trace.plans[step], places[: step + 1], goals[step], fan)
        axes.set_title(f"step {step}", fontsize=10)
    colours = ListedColormap(score_colours(np.linspace(0, 1, 64)))
    bar = figure.colorbar(ScalarMappable(cmap=colours), ax=figure.axes, shrink=0.6, pad=0.01, ticks=[0, 1])
    bar.ax.set_yticklabels(["worst\nscore", "best\nscore"], fontsize=8)
    _add_legend(figure, axes)
    return figure


def draw_maze_plan(
    axes: Axes, maze: MazeMap, plan: Any, walked: np.ndarray, goal: np.ndarray, fan: Any | None = None
) -> None:
    """Draw one plan into axes that show the maze.

    Args:
        axes: where to draw.
        maze: the map.
        plan: a plan of `trajplan.planners`.
        walked: (t, 2) places from the start to the present.
        goal: (2,).
        fan: paths to draw in place of the plan's beams, of the same form.
    """
    kept, by_score, _ = plan_beams(plan, maze)
    best, colour = kept[by_score[-1]], [part / 255 for part in BEST]
    paths, order, shade = plan_beams(plan if fan is None else fan, maze)
    colours, name = score_colours(shade), "kept beams" if fan is None else "imagined paths"
    axes.add_collection(
        LineCollection([paths[i] for i in order], colors=colours[order], linewidths=0.7, alpha=0.6, label=name)
    )
    axes.plot(*walked.T, color="#94a3b8", linewidth=1.5, label="walked")
    axes.plot(*best.T, color=colour, linewidth=2.2, solid_capstyle="round", label="best beam")
    axes.plot(*walked[0], marker="s", markersize=5, color="#64748b", linestyle="none", label="start")
    axes.plot(*walked[-1], marker="o", markersize=7, color=[part / 255 for part in BALL], linestyle="none", label="now")
    red = [part / 255 for part in GOAL]
    axes.plot(*goal, marker="*", markersize=11, color=red, linestyle="none", label="goal")
    axes.add_patch(Circle((float(goal[0]), float(goal[1])), maze.goal_radius, fill=False, color=red, linewidth=0.8))


def _draw_walls(axes: Axes, maze: MazeMap) -> None:
    image = np.where(maze.walls[..., None], np.array(WALL, np.uint8), np.array(BACKGROUND, np.uint8))
    axes.imshow(image, extent=maze.extent, interpolation="nearest")
    axes.autoscale(False)  # a beam that leaves the map must not stretch it
    axes.set_xticks([])
    axes.set_yticks([])


def prediction_figure(trace: Trace, info: DatasetInfo, dimensions: Sequence[int] | None = None) -> Figure:
    """What plans foresaw and what came, over the middle of an episode: one panel a dimension, and the reward.

    Plans start where the line of dots does; they are made anew while the episode goes on, so each shows what was
    predicted at its first step and not what was acted on later. The band holds 80 % of the living beams.

    Args:
        trace: one episode.
        info: names the dimensions.
        dimensions: columns of the observation to show; by default those that vary most, at most 12 in all.
    """
    steps = _plan_steps(trace)
    horizon = trace.plans[steps[0]].observations.shape[1]
    count = max(4, SHOWN_STEPS // horizon)
    begin = max(0, (len(steps) - count) // 2)
    shown = steps[begin : begin + count]
    first, last = shown[0], min(shown[-1] + horizon, len(trace.rewards))
    observations, rewards = np.array(trace.observations), np.array(trace.rewards)
    if dimensions is None:
        dimensions = most_varying(observations[first : last + 1], MAX_DIMENSIONS - 1)
    panels = len(dimensions) + 1
    columns = min(4, panels)
    rows = -(-panels // columns)
    figure = Figure(figsize=(3.3 * columns, 1.9 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    for axes, dim in zip(grid, dimensions, strict=False):
        axes.set_title(dimension_name(info, dim), fontsize=8, pad=3)
        foreseen = {step: trace.plans[step].observations[:, :, dim] for step in shown}
        _draw_prediction(axes, foreseen, trace, observations[:, dim], first, last)
    foreseen = {step: trace.plans[step].rewards for step in shown}
    _draw_prediction(grid[panels - 1], foreseen, trace, rewards, first, last)
    grid[panels - 1].set_title("reward", fontsize=8, pad=3)
    for axes in grid[panels:]:
        axes.set_axis_off()
    for axes in grid[max(0, panels - columns) : panels]:
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelbottom=True)
    figure.suptitle("Plans, from the steps they were made at (dots), and what came while planning went on", fontsize=9)
    _add_legend(figure, grid[0])
    return figure


def _draw_prediction(
    axes: Axes, foreseen: dict[int, np.ndarray], trace: Trace, realised: np.ndarray, first: int, last: int
) -> None:
    span = np.arange(first, min(last + 1, len(realised)))
    axes.plot(span, realised[span], color=_REALISED, linewidth=1.4, label="realised", zorder=3)
    for number, (step, values) in enumerate(foreseen.items()):
        plan = trace.plans[step]
        best = int(np.argmax(plan.scores))
        lengths = np.maximum(plan.alive.sum(axis=1), 1)
        lives = np.arange(lengths.max()) < lengths[:, None]
        low, high = np.nanpercentile(np.where(lives, values[:, : lengths.max()], np.nan), [10, 90], axis=0)
        # Only labelled things enter the legend, and an underscore keeps out the later plans.
        labels = ("80 % of beams", "predicted (best beam)") if number == 0 else ("_", "_")
        time = step + np.arange(lengths.max())
        axes.fill_between(time, low, high, color=_PREDICTED, alpha=0.22, linewidth=0, label=labels[0])
        foretold = values[best, : lengths[best]]
        axes.plot(time[: lengths[best]], foretold, color=_PREDICTED, linewidth=1.2, linestyle="--", label=labels[1])
        axes.plot(step, foretold[0], marker="o", markersize=3, color=_PREDICTED)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.25, linewidth=0.5)


def _add_legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8, frameon=False)


def _plan_steps(trace: Trace) -> list[int]:
    if not trace.plans:
        raise DataError(f"episode {trace.episode} holds no plan to draw; the policy makes none or it did not run.")
    return sorted(trace.plans)
