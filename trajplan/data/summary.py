"""What `trajplan datasets show` tells of a dataset, as plain numbers and as text."""

from typing import Any

import numpy as np
from gymnasium import spaces

from trajplan.data.columns import mean_and_std, row_blocks
from trajplan.data.episodes import Episodes
from trajplan.data.info import DatasetInfo
from trajplan.data.spaces import HOW_TO_BOUND, has_bounds


def summarize(dataset: Episodes) -> dict[str, Any]:
    """JSON-able numbers: sizes, episode lengths and returns, normalised scores, how episodes end, ranges.

    `std` is the standard deviation over the population. `normalized` is None without reference scores; there the
    it is scaled by the reference range only.
    """
    info = dataset.info
    reference = info.reference
    returns = _spread(dataset.returns)
    normalized = None
    if reference is not None:
        normalized = {key: float(reference.normalize(value)) for key, value in returns.items() if key != "std"}
        normalized["std"] = float(reference.normalize_std(returns["std"]))
    observations = _ranges(dataset.observations)
    actions = _ranges(dataset.actions)
    return {
        "id": dataset.id,
        "environment": info.env_spec.id if info.env_spec else None,
        "num_transitions": dataset.num_transitions,
        "num_episodes": dataset.num_episodes,
        "observation_dim": dataset.observation_dim,
        "action_dim": dataset.action_dim,
        "num_actions": info.num_actions,
        "tokens_per_transition": dataset.observation_dim + dataset.action_dim + 2,
        "observation_space": str(info.observation_space),
        "action_space": str(info.action_space),
        "length": _spread(dataset.lengths),
        "return": returns,
        "reward": _spread(dataset.rewards) | {"zero_fraction": float(np.mean(np.asarray(dataset.rewards) == 0.0))},
        "reference": reference and {"min": reference.min, "max": reference.max, "source": reference.source},
        "normalized": normalized,
        "episodes_ending_in": {end: int(which.sum()) for end, which in dataset.episode_ends().items()},
        "actions_out_of_bounds": _out_of_bounds(dataset),
        "observations": [
            {"name": name, **row} for name, row in zip(observation_names(info), observations, strict=True)
        ],
        "actions": [{"name": name, **row} for name, row in zip(action_names(info), actions, strict=True)],
        "versions": info.versions,
    }


def describe(dataset: Episodes) -> str:
    """What `print(dataset)` shows, in a few lines; of the arrays only rewards and flags are read."""
    info, lengths = dataset.info, dataset.lengths
    reference = info.reference
    shortest, longest = int(lengths.min()), int(lengths.max())
    steps = f"{longest:,}" if shortest == longest else f"{shortest:,} to {longest:,}"
    kinds = {"terminal": "a terminal", "timeout": "a time limit", "both": "both", "neither": "neither (just stop)"}
    ends = [f"{which.sum():,} in {kinds[end]}" for end, which in dataset.episode_ends().items() if which.any()]
    sources = [
        f"    {s.id}: {_counted(s.num_episodes, 'episode')}, {_counted(s.num_transitions, 'transition')}"
        for s in info.sources
    ]
    lines = [
        f"dataset {dataset.id}",
        f"  environment   {info.env_spec.id if info.env_spec else 'not recorded'}",
        f"  episodes      {dataset.num_episodes:,} of {steps} steps, {dataset.num_transitions:,} transitions",
        *sources,
        f"  episodes end  {', '.join(ends)}",
        f"  observations  {_observations(info)}",
        f"  actions       {_actions(info)}",
        f"  return        {_line(_spread(dataset.returns))}",
    ]
    if info.goal_columns is not None:
        lines.append(f"  goals         {', '.join(observation_names(info)[column] for column in info.goal_columns)}")
    lines += [f"  held out      {id}" for id in info.held_out]
    for transform in info.transforms:
        settings = ", ".join(f"{key} {value}" for key, value in transform.items() if key != "name")
        lines.append(f"  changed by    {transform['name']}: {settings}")
    if reference is not None:
        score, std = reference.normalize(dataset.returns.mean()), reference.normalize_std(dataset.returns.std())
        scale = f"0 is {reference.min:g} and 100 is {reference.max:g}, from {reference.source}"
        lines.append(f"  score         {score:.1f} ± {std:.1f}, where {scale}")
    return "\n".join(lines)


def describe_in_full(dataset: Episodes, summary: dict[str, Any]) -> str:
    """What `datasets show` prints: `describe`, and what `summarize` found by reading every array."""
    reward = summary["reward"]
    lines = [describe(dataset)]
    if summary["normalized"] is None:
        lines.append("  score         no reference scores are known; only raw returns can be reported")
    lines += [
        f"  reward        {_line(reward)}; {100 * reward['zero_fraction']:.1f} % are 0",
        f"  length        {_line(summary['length'])}",
        f"  tokens        {summary['tokens_per_transition']} per transition",
    ]
    if summary["actions_out_of_bounds"]:
        lines.append(f"  out of bounds {summary['actions_out_of_bounds']:,} action values lie outside the action space")
    rows = [("observation", row) for row in summary["observations"]] + [("action", row) for row in summary["actions"]]
    width = max(len(f"{kind} {row['name']}") for kind, row in rows)
    lines += ["", f"  {'dimension':<{width}}  {'min':>11} {'mean':>11} {'max':>11} {'std':>11}"]
    for kind, row in rows:
        numbers = " ".join(f"{row[key]:>11.4g}" for key in ("min", "mean", "max", "std"))
        lines.append(f"  {kind + ' ' + row['name']:<{width}}  {numbers}")
    lines += ["", "  read with " + ", ".join(f"{name} {version}" for name, version in summary["versions"].items())]
    return "\n".join(lines)


def _observations(info: DatasetInfo) -> str:
    parts = info.observation_layout
    named = [f"{part.name} {part.size}" for part in parts if part.path]
    return _counted(info.observation_dim, "dimension") + (f": {', '.join(named)}" if named else "")


def _actions(info: DatasetInfo) -> str:
    space = info.action_space
    if isinstance(space, spaces.Discrete):
        return f"{space.n} discrete, {space.start} to {space.start + space.n - 1}"
    assert isinstance(space, spaces.Box)
    size = _counted(info.action_dim, "dimension")
    if not has_bounds(space):
        return f"{size} without bounds, which baselines need: {HOW_TO_BOUND}"
    low, high = np.unique(space.low), np.unique(space.high)
    if len(low) == len(high) == 1:
        return f"{size} from {low[0]:g} to {high[0]:g}"
    return f"{size}, bounds between {low[0]:g} and {high[-1]:g}"


def _counted(count: int, name: str) -> str:
    return f"{count:,} {name}" + ("" if count == 1 else "s")


def observation_names(info: DatasetInfo) -> list[str]:
    """A name for each flat observation dimension: its number, for Dict spaces after its key."""
    parts = info.observation_layout
    if len(parts) == 1 and not parts[0].path:
        return [str(i) for i in range(info.observation_dim)]
    return [f"{part.name}[{i}]" for part in parts for i in range(part.size)]


def action_names(info: DatasetInfo) -> list[str]:
    """A name for each flat action dimension."""
    return [str(i) for i in range(info.action_dim)]


def _spread(values: np.ndarray) -> dict[str, float]:
    numbers = np.asarray(values)
    return {
        "mean": float(numbers.mean(dtype=np.float64)),
        "std": float(numbers.std(dtype=np.float64)),
        "min": float(numbers.min()),
        "max": float(numbers.max()),
    }


def _ranges(array: np.ndarray) -> list[dict[str, float]]:
    mean, std = mean_and_std(array)
    low = np.min([block.min(0) for block in row_blocks(array)], axis=0)
    high = np.max([block.max(0) for block in row_blocks(array)], axis=0)
    return [
        dict(zip(("min", "mean", "max", "std"), map(float, row), strict=True))
        for row in zip(low, mean, high, std, strict=True)
    ]


def _out_of_bounds(dataset: Episodes) -> int:
    space = dataset.info.action_space
    if not isinstance(space, spaces.Box):
        return 0
    low, high = space.low.reshape(-1).astype(np.float32), space.high.reshape(-1).astype(np.float32)
    return sum(int(np.sum((block < low) | (block > high))) for block in row_blocks(dataset.actions))


def _line(spread: dict[str, float]) -> str:
    return f"{spread['mean']:.6g} ± {spread['std']:.4g}, from {spread['min']:.6g} to {spread['max']:.6g}"
