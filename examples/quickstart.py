"""From nothing to a planning Trajectory Transformer in minutes on two cores: collect, train, plan, report.

    python examples/quickstart.py --output quickstart

The steps are `trajplan` commands, printed as they run; they can be typed by hand as well. Each leaves its result in the
output folder and takes up what is there: after Ctrl-C the same command goes on where it stopped.
"""

import argparse
import html
import json
import os
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from trajplan.cli import main as trajplan

ENV = "PointMaze_UMaze-v3"
DATASET = "pointmaze/umaze-mixed-v0"
NOISE = (0.5, 2.0, 5.0)  # one walker in three qualities, an equal share of episodes each
REPEAT = 5  # simulator steps an action: at 0.05 s a decision a short plan crosses half of the maze
EPISODES = 900
PRESET = "tt_quickstart"
SEED = 1_000_000  # of the first evaluation episode
MIXTURE = "mean behaviour in the data"


def main(argv: list[str] | None = None) -> None:
    """Do what has not been done yet, then say where the report is."""
    parser = argparse.ArgumentParser(description="Collect data in a maze, train on them, plan, and write a report.")
    parser.add_argument("--output", type=Path, default=Path("quickstart"), help="folder for all that is made")
    parser.add_argument("--episodes", type=int, default=50, help="evaluation episodes (default: 50)")
    args = parser.parse_args(argv)
    output = args.output.resolve()
    model, report = output / "model", output / "report"
    results = report / "results.json"
    if not results.exists():
        report.mkdir(parents=True, exist_ok=True)
        places = {"MINARI_DATASETS_PATH": str(output / "minari"), "TRAJPLAN_CACHE": str(output / "cache")}
        os.environ.update(places)
        print("$ export " + " ".join(f"{name}={shlex.quote(path)}" for name, path in places.items()))
        collect_train_evaluate(output, model, report, args.episodes)
        write_report(model, report, results)
    print(f"\n{json.loads(results.read_text())['summary']}\nReport: {report / 'report.html'}")
    print(f"Act with the model in your own loop: trajplan.load({str(model)!r}), see README.md")


def collect_train_evaluate(output: Path, model: Path, report: Path, episodes: int) -> None:
    """The three commands; a finished one is not done again."""
    if not (output / "minari" / DATASET).exists():
        levels = " ".join(f"{level:g}" for level in NOISE)
        how = f"--policy waypoint --noise {levels} --action-repeat {REPEAT} --episodes {EPISODES}"
        run(f"datasets collect --env {ENV} --id {DATASET} {how}")
    run(f"train --dataset {DATASET} --preset {PRESET} --output {shlex.quote(str(model))} --resume")
    how = f"--episodes {episodes} --num-envs {episodes} --seed {SEED} --video --picture --resume"
    run(f"evaluate {shlex.quote(str(model))} --output {shlex.quote(str(report))} {how}")


def run(command: str) -> None:
    """Run one `trajplan` command; stop the quickstart if it does not succeed."""
    print(f"\n$ trajplan {command}", flush=True)
    status = trajplan(shlex.split(command))
    if status:
        print("The same quickstart command goes on from here.")
        raise SystemExit(status)


def write_report(model: Path, report: Path, path: Path) -> None:
    """Compare the planner with what it learned from, on the same episodes, and write pictures, page and numbers."""
    evaluation = json.loads((report / "evaluation.json").read_text())
    returns = {"planner": [episode["return"] for episode in evaluation["episodes"]]}
    returns |= baseline_returns([episode["seed"] for episode in evaluation["episodes"]])
    results = summarize(returns)
    draw_learning_curve(model / "metrics.jsonl", report / "learning_curve.png")
    videos = [video.name for video in sorted((report / "videos").glob("*.mp4"))]
    (report / "report.html").write_text(render(results, videos))
    path.write_text(json.dumps(results, indent=2) + "\n")


def baseline_returns(seeds: list[int]) -> dict[str, list[float]]:
    """Returns of the random policy and of the data's walker at every noise level, one episode for each seed."""
    from trajplan.data.collect import make_policy, run_episode
    from trajplan.data.dataset import OfflineDataset

    print("\nRunning the random policy and the data's walker in the same episodes.", flush=True)
    env = OfflineDataset.from_minari(DATASET).info.make_env()
    policies = {"random policy": ("random", 0.0), "walker without noise": ("waypoint", 0.0)}
    policies |= {f"walker, noise {level:g}": ("waypoint", level) for level in NOISE}
    returns = {}
    for name, (policy, noise) in policies.items():
        act = make_policy(policy, env)
        returns[name] = [float(run_episode(env, act, noise=noise, seed=seed).rewards.sum()) for seed in seeds]
    walkers = [returns[f"walker, noise {level:g}"] for level in NOISE]
    return {**returns, MIXTURE: np.mean(walkers, axis=0).tolist()}


def summarize(returns: dict[str, list[float]]) -> dict[str, Any]:
    """Means with 95 % intervals, and the planner's margin over the mean behaviour, paired by episode."""
    from trajplan.evaluation.statistics import describe

    policies = {name: describe(values) for name, values in returns.items()}
    margin = describe(np.subtract(returns["planner"], returns[MIXTURE]))
    mean = {name: policy["mean"] for name, policy in policies.items()}
    low, high = margin["interval_95"]
    summary = (
        f"Over {len(returns['planner'])} episodes the planner reaches {mean['planner']:.2f} goals an episode, the "
        f"{MIXTURE} {mean[MIXTURE]:.2f} and a random policy {mean['random policy']:.2f}: "
        f"{margin['mean']:.2f} goals more than its data (95 % interval {low:.2f} to {high:.2f})."
    )
    return {"summary": summary, "margin": margin, "policies": policies, "returns": returns}


def draw_learning_curve(metrics: Path, path: Path) -> None:
    """The training loss, and the held-out cross-entropy of each kind of token, over the updates."""
    from matplotlib.figure import Figure

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


def render(results: dict[str, Any], videos: list[str]) -> str:
    """The report as one page of HTML; pictures and videos lie beside it."""
    rows = "".join(
        f"<tr><td>{html.escape(name)}<td>{policy['mean']:.2f}<td>{policy['interval_95'][0]:.2f} to "
        f"{policy['interval_95'][1]:.2f}<td>{policy['min']:g} to {policy['max']:g}"
        for name, policy in sorted(results["policies"].items(), key=lambda item: -item[1]["mean"])
    )
    films = "".join(f'<video src="videos/{name}" controls loop width="480"></video>' for name in videos)
    return f"""<!doctype html>
<meta charset="utf-8"><title>trajplan quickstart</title>
<style>
body {{ font: 16px/1.5 system-ui; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1e293b }}
td, th {{ padding: .2rem 1rem; text-align: left }} img {{ max-width: 100% }}
</style>
<h1>A Trajectory Transformer in {ENV}</h1>
<p>{html.escape(results["summary"])}</p>
<p>Reaching a goal earns 1, and a new goal appears. The data are {EPISODES} episodes of one scripted walker at
{len(NOISE)} levels of action noise; an action lasts {REPEAT} steps of the simulator.
All policies below ran the same episodes (same seeds).</p>
<table><tr><th>policy<th>goals an episode<th>95 % interval<th>range</tr>{rows}</table>
<h2>Plans</h2><p>All beams that the search kept (they often agree), and over them the best one.</p>
<img src="plan.png" alt="plans in the maze">
<p>{films}</p>
<h2>Learning</h2><img src="learning_curve.png" alt="learning curve">
"""


if __name__ == "__main__":
    main()
