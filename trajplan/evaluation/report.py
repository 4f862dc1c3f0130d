"""The numbers of an evaluation as `evaluation.json`, kept up to date while it runs, and as a table."""

import dataclasses
import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from trajplan.data import info
from trajplan.data.scores import ReferenceScores
from trajplan.errors import CheckpointError, ConfigError
from trajplan.evaluation.rollout import Episode, Rollouts
from trajplan.evaluation.statistics import INTERVAL_METHOD, describe, normalized
from trajplan.files import read_json, write_json
from trajplan.planners.settings import todays

SCHEMA_VERSION = 1
# What episodes of one evaluation must share, for a resumed run to be the same as an unbroken one.
_IDENTITY = ("schema_version", "model_sha256", "environment", "tasks", "seed", "planner", "aids", "versions")


def evaluation_versions() -> dict[str, str]:
    """Those of the packages that episodes depend on, by name, as `versions` holds them."""
    return {**info.package_versions(), "torch": metadata.version("torch")}


class EvaluationFile:
    """`evaluation.json`, rewritten atomically after every episode.

    Its keys: `schema_version`, `complete`, `seed` (episode n is reset with seed + n), `num_episodes`, `num_envs`,
    `tasks` (only where the environment has several: of K tasks, episode n is of the (n mod K)-th), `environment`,
    `dataset` (id, mean return of the data), `model_sha256`, `planner` (all settings), `aids` (the SHA-256 of the
    weights in each folder that the planner's settings name; only where they name one), `reference` (min, max, source;
    or null), `versions`, `episodes` (one entry each), `summary` and `timing` (null until the run is complete).

    Args:
        path: the file, or None to keep the report in memory alone.
        settings: everything that is known before the first episode.
        reference: what normalises, or None.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any], reference: ReferenceScores | None) -> None:
        self.path = path
        self.reference = reference
        self.settings = {
            "schema_version": SCHEMA_VERSION,
            **settings,
            "reference": dataclasses.asdict(reference) if reference else None,
        }
        self.episodes: list[Episode] = []
        self._timing: dict[str, Any] | None = None

    def resume(self) -> list[Episode]:
        """Take over the finished episodes of the file that is there, if any."""
        if self.path is None or not self.path.exists():
            return []
        found = read_json(self.path)
        try:
            episodes = [_episode_from_dict(entry) for entry in found["episodes"]]
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"{self.path} is damaged ({type(error).__name__} {error}); remove it and evaluate anew."
            ) from None
        ours = json.loads(json.dumps(self.settings))
        for settings in (found, ours):
            if settings.get("planner") is not None:
                settings["planner"] = todays(settings["planner"])
        differing = [name for name in _IDENTITY if found.get(name) != ours.get(name)]
        if differing:
            raise ConfigError(
                f"{self.path} cannot be resumed: it differs in {', '.join(differing)}; "
                "give the same settings, or leave --resume out to start over."
            )
        self._timing = found.get("timing")
        asked = self.settings["num_episodes"]
        self.episodes = [episode for episode in episodes if episode.episode < asked]
        if len(episodes) > len(self.episodes) == asked:
            raise ConfigError(
                f"{self.path} already holds {len(episodes)} episodes, more than the {asked} asked for: "
                f"ask for {len(episodes)} or more, or leave --resume out to start over."
            )
        return list(self.episodes)

    def add(self, episode: Episode) -> None:
        """Keep one more finished episode, on disk before this returns where there is a file."""
        self.episodes.append(episode)
        self._write({"complete": False, "summary": None, "timing": None})

    def finish(self, rollouts: Rollouts) -> dict[str, Any]:
        """Write the whole report and return it.

        A resumed run's `timing` is that of the steps since it was resumed, or the one before if there were none.
        """
        self.episodes = rollouts.episodes
        summary, times = summarize(rollouts.episodes, self.reference), timing(rollouts) or self._timing
        return self._write({"complete": True, "summary": summary, "timing": times})

    def _write(self, state: dict[str, Any]) -> dict[str, Any]:
        ordered = sorted(self.episodes, key=lambda episode: episode.episode)
        entries = [episode_to_dict(episode, self.reference) for episode in ordered]
        report = {**self.settings, **state, "episodes": entries}
        if self.path is not None:
            write_json(self.path, report)
        return report


def summarize(episodes: list[Episode], reference: ReferenceScores | None) -> dict[str, Any]:
    """`describe` of returns and lengths, of normalised scores (x100, or None), how episodes ended, and successes."""
    returns = describe([episode.total_reward for episode in episodes])
    successes = [episode.success for episode in episodes if episode.success is not None]
    return {
        "interval_method": INTERVAL_METHOD,
        "return": returns,
        "normalized_score": normalized(returns, reference.min, reference.max) if reference else None,
        "length": describe([episode.length for episode in episodes]),
        "terminated": sum(episode.terminated for episode in episodes),
        "truncated": sum(episode.truncated for episode in episodes),
        "success_rate": float(np.mean(successes)) if successes else None,
        **({"tasks": by_task} if (by_task := _by_task(episodes)) else {}),
    }


def _by_task(episodes: list[Episode]) -> dict[str, dict[str, Any]]:
    """Of each task, by its number: how many episodes, the share that succeeded, mean return and length."""
    tasks: dict[int, list[Episode]] = {}
    for episode in episodes:
        if episode.task is not None:
            tasks.setdefault(episode.task, []).append(episode)
    return {
        str(task): {
            "episodes": len(own),
            "success_rate": float(np.mean([bool(episode.success) for episode in own])),
            "mean_return": float(np.mean([episode.total_reward for episode in own])),
            "mean_length": float(np.mean([episode.length for episode in own])),
        }
        for task, own in sorted(tasks.items())
    }


def timing(rollouts: Rollouts) -> dict[str, Any] | None:
    """How long a batched call of the policy took, and environment steps per second; None when no step was made."""
    calls = rollouts.plan_seconds
    if len(calls) == 0:
        return None
    steps = int(rollouts.plan_rows.sum())
    return {
        "plan_seconds_p50": float(np.percentile(calls, 50)),
        "plan_seconds_p95": float(np.percentile(calls, 95)),
        "plan_calls": len(calls),
        "environments_per_call": steps / len(calls),
        "steps": steps,
        "steps_per_second": steps / rollouts.seconds,
        "seconds": rollouts.seconds,
    }


def episode_to_dict(episode: Episode, reference: ReferenceScores | None) -> dict[str, Any]:
    """An episode as its entry of `evaluation.json`."""
    score = float(reference.normalize(np.float64(episode.total_reward))) if reference else None
    values = dataclasses.asdict(episode)
    if episode.task is None:
        del values["task"]
    return {
        "episode": values.pop("episode"),
        "seed": values.pop("seed"),
        "return": values.pop("total_reward"),
        "normalized_score": score,
        **values,
    }


def format_table(report: Mapping[str, Any]) -> str:
    """The finished report for people: one line an episode, then means with intervals, the data's mean and timing."""
    scored = report["reference"] is not None
    lines = ["episode    seed      return" + ("   score" if scored else "") + "  length  end"]
    tasks = report["summary"].get("tasks", {})
    for entry in report["episodes"]:
        ends = [name for name in ("terminated", "truncated") if entry[name]]
        ends += ["success"] if entry["success"] else []
        ends += [f"task {entry['task']}"] if "task" in entry else []
        score = f"{entry['normalized_score']:8.1f}" if scored else ""
        head = f"{entry['episode']:7d} {entry['seed']:7d} {entry['return']:11.2f}{score}"
        lines.append(f"{head} {entry['length']:7d}  {', '.join(ends)}")
    summary = report["summary"]
    lines += ["", f"return            {_line(summary['return'])}"]
    if scored:
        reference = report["reference"]
        lines.append(f"normalised score  {_line(summary['normalized_score'])}")
        lines.append(
            f"                  0 is {reference['min']:g} and 100 is {reference['max']:g} ({reference['source']})"
        )
    lines.append(f"length            {_line(summary['length'])}")
    if summary["success_rate"] is not None:
        lines.append(f"success           {100 * summary['success_rate']:.1f} % of episodes")
    for task, found in tasks.items():
        rate, count = 100 * found["success_rate"], found["episodes"]
        lines.append(f"  task {task:<11} {rate:.1f} % of {count}, mean length {found['mean_length']:.0f}")
    dataset = report["dataset"]
    data_score = dataset["mean_normalized_score"]
    scored_data = "" if data_score is None else f" (normalised {data_score:.1f})"
    lines.append(f"the data          mean return {dataset['mean_return']:.2f}{scored_data} in {dataset['id']}")
    if report["timing"] is not None:
        lines.append(f"plan              {_timing_line(report['timing'])}")
    return "\n".join(lines)


def _line(description: Mapping[str, Any]) -> str:
    interval, spread = description["interval_95"], ""
    if interval is not None:
        spread = (
            f", 95 % interval {interval[0]:.2f} to {interval[1]:.2f} ({INTERVAL_METHOD}), std {description['std']:.2f}"
        )
    return f"mean {description['mean']:.2f}{spread}, median {description['median']:.2f}"


def _timing_line(timing: Mapping[str, Any]) -> str:
    p50, p95 = 1000 * timing["plan_seconds_p50"], 1000 * timing["plan_seconds_p95"]
    return (
        f"p50 {p50:.1f} ms, p95 {p95:.1f} ms for {timing['environments_per_call']:.1f} environments at once; "
        f"{timing['steps_per_second']:.1f} steps a second"
    )


def _episode_from_dict(entry: Mapping[str, Any]) -> Episode:
    values = {name: entry[name] for name in ("episode", "seed", "length", "terminated", "truncated", "success")}
    return Episode(total_reward=entry["return"], task=entry.get("task"), **values)
