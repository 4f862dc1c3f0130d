"""The quickstart's report: one HTML file that holds its pictures and videos, with numbers, commands and settings."""

import base64
import html
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from trajplan.comparison import markup
from trajplan.data.collection.collect import make_policy, run_episode
from trajplan.data.dataset import OfflineDataset
from trajplan.evaluation.statistics import describe

MIXTURE = "mean behaviour in the data"
CLONING = "behaviour cloning"
MEDIA = {".png": "image/png", ".mp4": "video/mp4"}
CSS = markup.CSS + "figure img, video { max-width: 100%; border-radius: 4px }\nvideo { width: 19rem }\n"


def write_report(output: Path, dataset: str, noise: Sequence[float], commands: Sequence[str]) -> None:
    """Compare the planner with what it learned from, on the same episodes; write report.html and results.json.

    Args:
        output: the quickstart's folder: model, cloning, report.
        dataset: the Minari dataset that both learned from.
        noise: levels of the walkers in it.
        commands: what was run, as it is typed.
    """
    report = output / "report"
    planner, cloning = (
        json.loads((output / folder / "evaluation.json").read_text()) for folder in ("report", "cloning")
    )
    seeds = [episode["seed"] for episode in planner["episodes"]]
    returns = {
        "planner": [episode["return"] for episode in planner["episodes"]],
        CLONING: [episode["return"] for episode in cloning["episodes"]],
        **walker_returns(dataset, noise, seeds),
    }
    results = summarize(returns) | {"seconds": json.loads((output / "seconds.json").read_text())}
    learning_curve(output / "model" / "metrics.jsonl", report / "learning_curve.png")
    settings = {name: json.loads((output / "model" / f"{name}.json").read_text()) for name in ("training", "planner")}
    versions = {"python": platform.python_version(), **planner["versions"]}
    (report / "report.html").write_text(render(report, results, commands, settings, versions))
    (report / "results.json").write_text(json.dumps(results, indent=2) + "\n")


def walker_returns(dataset: str, noise: Sequence[float], seeds: Sequence[int]) -> dict[str, list[float]]:
    """Returns of the random policy and of the data's walker at every noise level, one episode for each seed."""
    env = OfflineDataset.from_minari(dataset).info.make_env()
    policies = {"random policy": ("random", 0.0), "walker without noise": ("waypoint", 0.0)}
    policies |= {f"walker, noise {level:g}": ("waypoint", level) for level in noise}
    returns = {}
    for name, (policy, level) in policies.items():
        act = make_policy(policy, env)
        returns[name] = [float(run_episode(env, act, noise=level, seed=seed).rewards.sum()) for seed in seeds]
    walkers = [returns[f"walker, noise {level:g}"] for level in noise]
    return {**returns, MIXTURE: np.mean(walkers, axis=0).tolist()}


def summarize(returns: dict[str, list[float]]) -> dict[str, Any]:
    """Means with 95 % intervals, and the planner's margins over data and cloning, paired by episode."""
    policies = {name: describe(values) for name, values in returns.items()}
    margins = {name: describe(np.subtract(returns["planner"], returns[name])) for name in (MIXTURE, CLONING)}
    mean = {name: policy["mean"] for name, policy in policies.items()}
    low, high = margins[MIXTURE]["interval_95"]
    more = margins[MIXTURE]["mean"]
    summary = (
        f"Over {len(returns['planner'])} episodes the planner reaches {mean['planner']:.2f} goals an episode, the "
        f"{MIXTURE} {mean[MIXTURE]:.2f}, {CLONING} {mean[CLONING]:.2f} and a random policy "
        f"{mean['random policy']:.2f}: {more:.2f} goals more than its data (95 % interval {low:.2f} to {high:.2f})."
    )
    return {
        "summary": summary,
        "margin": margins[MIXTURE],
        "margins": margins,
        "policies": policies,
        "returns": returns,
    }


def learning_curve(metrics: Path, path: Path) -> None:
    """Draw the training loss, and the held-out cross-entropy of each kind of token, over the updates."""
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    measured = [line for line in lines if "held_out/loss" in line]
    updates = [line["update"] for line in measured]
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([line["update"] for line in lines], [line["loss"] for line in lines], color="#94a3b8", label="training")
    left.plot(updates, [line["held_out/loss"] for line in measured], marker=".", label="held out")
    for kind in ("observation", "action", "reward", "return"):
        right.plot(updates, [line[f"held_out/{kind}"] for line in measured], marker=".", label=kind)
    left.set(title="weighted loss", xlabel="update", ylabel="nats per token")
    right.set(title="held-out cross-entropy by kind of token", xlabel="update")
    for axes in (left, right):
        axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=130)


def render(
    report: Path, results: dict[str, Any], commands: Sequence[str], settings: dict[str, Any], versions: dict[str, str]
) -> str:
    """The report as one page that needs no other file and no network."""
    rows = [
        [name, f"{policy['mean']:.2f}", _interval(policy), f"{policy['min']:g} to {policy['max']:g}"]
        for name, policy in sorted(results["policies"].items(), key=lambda item: -item[1]["mean"])
    ]
    films = "".join(
        f'<video src="{embedded(film)}" controls loop muted></video> '
        for film in sorted((report / "videos").glob("*.mp4"))
    )
    times = [[name, markup.duration(seconds)] for name, seconds in results["seconds"].items()]
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}; {packages}"
    shown = {name: html.escape(json.dumps(values, indent=1)) for name, values in settings.items()}
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>trajplan quickstart</title><style>
{CSS}</style></head><body><main>
<h1>A Trajectory Transformer plans in a maze</h1>
<p class="lead">{html.escape(results["summary"])}</p>
{markup.figure(_image(report / "plan.png", "plans in the maze"), PLANS)}
<h2>Goals reached</h2>
<p>Reaching a goal earns 1, and a new goal appears. The data are episodes of one scripted walker at several levels of
action noise; their mean is what imitating the noise too would reach. All policies ran the same episodes (same
seeds).</p>
{markup.table(["policy", "goals an episode", "95 % interval", "range"], rows)}
<h2>Episodes of the planner</h2><div>{films}</div>
<h2>Learning</h2>{markup.figure(_image(report / "learning_curve.png", "learning curves"), CURVES)}
<h2>How it was made</h2>
<pre>{html.escape(chr(10).join(commands))}</pre>
{markup.table(["step", "time"], times)}
<p class="quiet">{html.escape(machine)}</p>
<details><summary>Settings of the training</summary><pre>{shown["training"]}</pre></details>
<details><summary>Settings of the planner</summary><pre>{shown["planner"]}</pre></details>
</main></body></html>
"""


PLANS = (
    "Thin: paths that the model imagines from the present position, coloured by the return that it predicts. Bold: the "
    "best beam of the search, whose actions are taken. Star: the goal."
)
CURVES = "Left: the loss that is minimised. Right: how well each kind of token is predicted in episodes held out."


def embedded(path: Path) -> str:
    """A file as a data URI."""
    return f"data:{MEDIA[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _image(path: Path, text: str) -> str:
    return f'<img src="{embedded(path)}" alt="{html.escape(text)}">'


def _interval(policy: dict[str, Any]) -> str:
    return " to ".join(f"{end:.2f}" for end in policy["interval_95"])
