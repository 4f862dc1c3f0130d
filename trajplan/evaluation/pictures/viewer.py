"""A page to walk through an episode's plans: one HTML file with everything in it, for any planner."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trajplan.data.info import DatasetInfo
from trajplan.errors import DataError
from trajplan.evaluation.pictures.maze import MazeMap, maze_of
from trajplan.evaluation.pictures.trace import current_plan, dimension_name, most_varying
from trajplan.evaluation.policy import Policy
from trajplan.evaluation.rollout import Moment
from trajplan.files import writing

# Beams and dimensions on the page at most, and its bytes: where an episode needs more, fewer beams are shown.
BEAMS, DIMENSIONS, BYTES = 32, 11, 9_500_000
_LEVELS = 999


@dataclass(frozen=True)
class _Kept:
    """Of a plan made at `step`: beams of the ranks (K,), best first, of the `kept` that there were."""

    step: int
    kept: int
    ranks: np.ndarray
    plan: Any

    def beams(self, count: int) -> np.ndarray:
        """At most `count` of them, the best one and the rest evenly over the ranks."""
        return spread(len(self.ranks), count)


@dataclass
class ViewerRecorder:
    """An observer of `trajplan.evaluation.rollout.evaluate` that remembers one episode and every plan made in it.

    Args:
        policy: whose `last_plans` to remember.
        episode: the number of the episode.
    """

    policy: Policy
    episode: int = 0
    observations: list[np.ndarray] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    plans: list[_Kept] = field(default_factory=list)
    maze: MazeMap | None = None
    _newest: Any = None

    def __call__(self, moment: Moment) -> None:
        """Remember one moment, if it belongs to the episode."""
        if moment.episode != self.episode:
            return
        if moment.step == 0:
            self.maze = maze_of(moment.env, self.policy.info)
        else:
            self.rewards.append(moment.reward)
        self.observations.append(moment.observation.copy())
        if moment.action is None:
            return
        self.actions.append(moment.action.copy())
        plan = current_plan(self.policy, moment.slot)
        if plan is not None and plan is not self._newest:
            self.plans.append(_Kept(moment.step, len(plan.scores), *_thinned(plan)))
        self._newest = plan


def save_viewer(recorder: ViewerRecorder, info: DatasetInfo, path: Path) -> None:
    """Write the page of an episode, under 10 MB.

    Raises:
        CheckpointError: when it cannot be written.
        DataError: when the episode holds no plan, or is too long for a page.
    """
    page = viewer_page(recorder, info)
    with writing(path):
        path.write_text(page, encoding="utf-8")


def viewer_page(recorder: ViewerRecorder, info: DatasetInfo) -> str:
    """The page, with as many beams a plan as it has room for."""
    if not recorder.plans:
        raise DataError(f"episode {recorder.episode} holds no plan to show: the policy makes none or it did not run.")
    template = Path(__file__).with_name("viewer.html").read_text(encoding="utf-8")
    beams = BEAMS
    while True:
        # No "<" is left that could end the script element, whatever a name holds.
        text = json.dumps(viewer_data(recorder, info, beams), separators=(",", ":"), allow_nan=False)
        page = template.replace("DATA", text.replace("<", "\\u003c"), 1)
        if len(page) <= BYTES:
            return page
        if beams == 1:
            raise DataError(f"episode {recorder.episode} is too long for a page: give a smaller --max-episode-steps.")
        beams = max(1, min(beams - 1, int(beams * BYTES / len(page))))


def viewer_data(recorder: ViewerRecorder, info: DatasetInfo, beams: int = BEAMS) -> dict[str, Any]:
    """What the page shows, JSON-able.

    `columns` have a name, the realised `values`, and `low` and `high`, between which planned values are whole numbers
    from 0 to 999. They are x and y in a maze, else the dimensions that vary most and the reward. Every entry of `plans`
    has by shown beam `ranks`, `scores`, `log_likelihood` and `paths` (by column, up to the beam's end).
    """
    observations, maze = np.array(recorder.observations), recorder.maze
    if maze is not None:
        dims = [maze.position.start, maze.position.start + 1]
    else:
        dims = sorted(most_varying(observations, DIMENSIONS))
    names, realised = [dimension_name(info, dim) for dim in dims], [observations[:, dim] for dim in dims]
    planned = [[kept.plan.observations[..., dim] for dim in dims] for kept in recorder.plans]
    if maze is None:
        names, realised = [*names, "reward"], [*realised, np.array(recorder.rewards)]
        planned = [[*values, kept.plan.rewards] for values, kept in zip(planned, recorder.plans, strict=True)]
    ranges = [_range([values, *(plan[c] for plan in planned)]) for c, values in enumerate(realised)]
    shown = f"at most {beams} beams a plan, evenly by rank" if beams < BEAMS else "the kept beams"
    return {
        "title": info.env_spec.id if info.env_spec else info.id,
        "about": f"dataset {info.id}; {len(recorder.plans)} plans in {len(recorder.rewards)} steps; shown are {shown}",
        "episode": recorder.episode,
        "steps": len(recorder.rewards),
        "returns": _rounded(np.cumsum([0.0, *recorder.rewards])),
        "actions": [_rounded(action) for action in recorder.actions],
        "columns": [
            {"name": name, "values": _rounded(values), "low": low, "high": high}
            for name, values, (low, high) in zip(names, realised, ranges, strict=True)
        ],
        "plans": [
            _plan(kept, values, ranges, beams) for kept, values in zip(recorder.plans, planned, strict=True)
        ],
        "maze": maze
        and {
            "walls": maze.walls.astype(int).tolist(),
            "cell": maze.cell,
            "goals": [_rounded(place) for place in observations[:, maze.goal]],
            "radius": maze.goal_radius,
        },
    }  # fmt: skip


def spread(total: int, count: int) -> np.ndarray:
    """At most `count` numbers below `total`, evenly spread, 0 among them."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int))


def _thinned(plan: Any) -> tuple[np.ndarray, Any]:
    """The ranks of at most `BEAMS` beams, and a plan of them alone."""
    ranks = spread(len(plan.scores), BEAMS)
    names = ("observations", "rewards", "scores", "log_likelihood", "alive")
    return ranks, _Beams(**{name: np.array(getattr(plan, name)[ranks]) for name in names})


@dataclass(frozen=True)
class _Beams:
    observations: np.ndarray
    rewards: np.ndarray
    scores: np.ndarray
    log_likelihood: np.ndarray
    alive: np.ndarray


def _plan(kept: _Kept, values: list[np.ndarray], ranges: list[tuple[float, float]], count: int) -> dict[str, Any]:
    chosen = kept.beams(count)
    lengths = np.maximum(kept.plan.alive.sum(1), 1)
    columns = [_levels(column, *bounds) for column, bounds in zip(values, ranges, strict=True)]
    return {
        "step": kept.step,
        "kept": kept.kept,
        "horizon": kept.plan.alive.shape[1],
        "ranks": kept.ranks[chosen].tolist(),
        "scores": _rounded(kept.plan.scores[chosen]),
        "log_likelihood": _rounded(kept.plan.log_likelihood[chosen]),
        "paths": [[column[beam][: lengths[beam]] for column in columns] for beam in chosen],
    }


def _range(parts: list[np.ndarray]) -> tuple[float, float]:
    values = np.concatenate([part.ravel() for part in parts]).astype(np.float64)
    values = values[np.isfinite(values)]
    return float(values.min()), float(values.max())


def _levels(values: np.ndarray, low: float, high: float) -> list[list[int | None]]:
    scaled = (values.astype(np.float64) - low) / ((high - low) or 1.0) * _LEVELS
    return [[round(x) if np.isfinite(x) else None for x in row] for row in scaled.tolist()]


def _rounded(values: Any) -> list[float | None]:
    """Five significant digits; None where there is no finite number."""
    return [float(f"{x:.5g}") if np.isfinite(x) else None for x in np.asarray(values, np.float64).tolist()]
