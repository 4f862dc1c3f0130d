"""A page to walk through an episode's plans: one HTML file with everything in it, for any planner."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trajplan.data.info import DatasetInfo
from trajplan.errors import DataError
from trajplan.evaluation.pictures.trace import Trace, dimension_name, most_varying
from trajplan.files import writing
from trajplan.planners.plan import Plan

# Trajectories of a plan and dimensions on the page at most, and its bytes: a long episode leaves room for fewer.
BEAMS, DIMENSIONS, BYTES = 32, 11, 9_500_000
_LEVELS = 999


@dataclass(frozen=True)
class _Kept:
    """At most `BEAMS` trajectories of a plan, best first, and their ranks (K,) among all `total`."""

    total: int
    ranks: np.ndarray
    observations: np.ndarray
    rewards: np.ndarray
    scores: np.ndarray
    log_likelihood: np.ndarray
    alive: np.ndarray
    returns: np.ndarray


class ViewerTrace(Trace):
    """A trace of every plan of an episode, of each as many trajectories as the page can show."""

    def keep(self, plan: Plan, step: int) -> None:
        """Remember a plan."""
        ranks = spread(len(plan.scores), BEAMS)
        parts = (plan.observations, plan.rewards, plan.scores, plan.log_likelihood, plan.alive, plan.returns)
        self.plans[step] = _Kept(len(plan.scores), ranks, *(part[ranks] for part in parts))


def save_viewer(trace: ViewerTrace, info: DatasetInfo, path: Path) -> None:
    """Write the page of an episode, under 10 MB."""
    page = viewer_page(trace, info)
    with writing(path):
        path.write_text(page, encoding="utf-8")


def viewer_page(trace: ViewerTrace, info: DatasetInfo) -> str:
    """The page, with as many trajectories of each plan as it has room for."""
    if not trace.plans:
        raise DataError(f"episode {trace.episode} holds no plan to show: the policy makes none or it did not run.")
    template = Path(__file__).with_name("viewer.html").read_text(encoding="utf-8")
    beams = BEAMS
    while True:
        # No "<" is left that could end the script element, whatever a name holds.
        text = json.dumps(viewer_data(trace, info, beams), separators=(",", ":"), allow_nan=False)
        page = template.replace("DATA", text.replace("<", "\\u003c"), 1)
        if len(page) <= BYTES:
            return page
        if beams == 1:
            raise DataError(f"episode {trace.episode} is too long for a page: give a smaller --max-episode-steps.")
        beams = max(1, min(beams - 1, int(beams * BYTES / len(page))))


def viewer_data(trace: ViewerTrace, info: DatasetInfo, beams: int = BEAMS) -> dict[str, Any]:
    """What the page shows, JSON-able.

    `columns` are x and y in a maze, else the dimensions that vary most and the reward: a name, the realised `values`,
    and `low` and `high`, between which planned values are whole numbers from 0 to 999 (beyond is on the edge).
    Every entry of `plans` has by shown trajectory `ranks`, `scores`, `log_likelihood` and `paths`, which hold planned
    values by column up to the trajectory's end.
    """
    observations, plans, maze = np.array(trace.observations), list(trace.plans.values()), trace.maze
    if maze is not None:
        dims = [maze.position.start, maze.position.start + 1]
    else:
        dims = sorted(most_varying(observations, DIMENSIONS))
    names, realised = [dimension_name(info, dim) for dim in dims], [observations[:, dim] for dim in dims]
    planned = [[kept.observations[..., dim] for dim in dims] for kept in plans]
    if maze is None:
        names, realised = [*names, "reward"], [*realised, np.array(trace.rewards)]
        planned = [[*values, kept.rewards] for values, kept in zip(planned, plans, strict=True)]
    ranges = [_range(values, [plan[c] for plan in planned]) for c, values in enumerate(realised)]
    if maze is not None:
        ranges = [maze.extent[:2], maze.extent[2:]]
    shown = f"at most {beams} trajectories of each, evenly by rank"
    return {
        "title": info.env_spec.id if info.env_spec else info.id,
        "about": f"dataset {info.id}; {len(trace.plans)} plans in {len(trace.rewards)} steps; {shown}",
        "episode": trace.episode,
        "steps": len(trace.rewards),
        "returns": _rounded(np.cumsum([0.0, *trace.rewards])),
        "actions": [_rounded(action) for action in trace.actions],
        "columns": [
            {"name": name, "values": _rounded(values), "low": low, "high": high}
            for name, values, (low, high) in zip(names, realised, ranges, strict=True)
        ],
        "plans": [
            {"step": step} | _plan(kept, values, ranges, beams)
            for (step, kept), values in zip(trace.plans.items(), planned, strict=True)
        ],
        "maze": maze
        and {
            "walls": maze.walls.astype(int).tolist(),
            "cell": maze.cell,
            "corner": [maze.extent[0], maze.extent[3]],
            "goals": [_rounded(place) for place in trace.goal_places],
            "radius": maze.goal_radius,
        },
    }  # fmt: skip


def spread(total: int, count: int) -> np.ndarray:
    """At most `count` numbers below `total`, evenly spread, 0 among them."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int))


def _plan(kept: _Kept, values: list[np.ndarray], ranges: list[tuple[float, float]], count: int) -> dict[str, Any]:
    chosen = spread(len(kept.ranks), count)
    lengths = np.maximum(kept.alive[chosen].sum(1), 1)
    # A trajectory that is shorter than the horizon and has a return-to-go was not looked at further.
    after = kept.returns[chosen, lengths - 1]
    ends = (lengths < kept.alive.shape[1]) & (after == 0)
    columns = [_levels(column[chosen], *bounds) for column, bounds in zip(values, ranges, strict=True)]
    return {
        "kept": kept.total,
        "ends": ends.tolist(),
        "ranks": kept.ranks[chosen].tolist(),
        "scores": _rounded(kept.scores[chosen]),
        "log_likelihood": _rounded(kept.log_likelihood[chosen]),
        "paths": [[beam[:length] for beam in beams] for *beams, length in zip(*columns, lengths, strict=True)],
    }


def _range(realised: np.ndarray, planned: list[np.ndarray]) -> tuple[float, float]:
    """From the least to the greatest that came and, but for the outermost hundredths, was planned."""
    plans = np.concatenate([values.ravel() for values in planned])
    low, high = np.percentile(plans[np.isfinite(plans)], [1, 99]) if np.isfinite(plans).any() else realised[[0, 0]]
    return float(min(low, realised.min())), float(max(high, realised.max()))


def _levels(values: np.ndarray, low: float, high: float) -> list[list[int | None]]:
    scaled = ((values.astype(np.float64) - low) / ((high - low) or 1.0)).clip(0, 1) * _LEVELS
    if np.isfinite(scaled).all():
        return scaled.round().astype(int).tolist()
    return [[round(x) if np.isfinite(x) else None for x in row] for row in scaled.tolist()]


def _rounded(values: Any) -> list[float | None]:
    """Five significant digits; None where there is no finite number."""
    return [float(f"{x:.5g}") if np.isfinite(x) else None for x in np.asarray(values, np.float64).tolist()]
