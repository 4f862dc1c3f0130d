"""What planning less often costs, and what a warm start gives back: returns beside process seconds a step.

Each cell (task, `replan_every`, cold or warm) runs the same episodes with the same small search, cut off early to
afford them all. A cell that is done is not run again: the same command goes on where it was stopped.
"""

import argparse
import json
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from record import write

import trajplan
from trajplan.planners.beam_search import BeamSearchConfig
from trajplan.planners.settings import describe_planner, saved_planner

REPLAN = (10, 5, 2, 1)
SEARCH = {"horizon": 10, "beam_width": 8, "n_expand": 2}


def run(model: Path, config: BeamSearchConfig, folder: Path, episodes: int, steps: int) -> dict:
    """One cell; its process seconds are those of all its episodes, planned for at once."""
    done = folder / "cell.json"
    if done.exists():
        return json.loads(done.read_text())
    start = time.process_time()
    evaluation = trajplan.evaluate(
        model, episodes=episodes, num_envs=episodes, max_episode_steps=steps, planner=config, progress=False
    )
    seconds = time.process_time() - start
    taken = sum(episode["length"] for episode in evaluation.report["episodes"])
    cell = {
        "returns": evaluation.returns.tolist(),
        "steps": taken,
        "process_seconds": seconds,
        "settings": describe_planner(config),
    }
    folder.mkdir(parents=True, exist_ok=True)
    done.write_text(json.dumps(cell))
    return cell


def interval(returns: list[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval (Student t) for 10 episodes or about as many."""
    values = torch.tensor(returns, dtype=torch.float64)
    return float(values.mean()), 2.26 * float(values.std()) / len(returns) ** 0.5


def draw(cells: dict, path: Path, steps: int) -> None:
    """Return against environment steps a second of one core, a line each for cold and warm starts."""
    tasks = list(dict.fromkeys(cell["task"] for cell in cells.values()))
    figure, axes = plt.subplots(1, len(tasks), figsize=(4.5 * len(tasks), 3.6), squeeze=False, layout="constrained")
    for axis, task in zip(axes[0], tasks, strict=True):
        for warm, colour, name in ((False, "tab:blue", "cold"), (True, "tab:orange", "warm start")):
            found = [cell for cell in cells.values() if (cell["task"], cell["warm_start"]) == (task, warm)]
            found.sort(key=lambda cell: cell["replan_every"])
            speeds = [cell["steps_per_process_second"] for cell in found]
            means, widths = [cell["mean"] for cell in found], [cell["half_interval_95"] for cell in found]
            axis.errorbar(speeds, means, widths, fmt="o-", color=colour, capsize=3, label=name)
            for speed, mean, cell in zip(speeds, means, found, strict=True):
                offset = (6, -14 if warm else 6)
                axis.annotate(
                    str(cell["replan_every"]), (speed, mean), textcoords="offset points", xytext=offset, color=colour
                )
        axis.set(title=task, xscale="log", xlabel="environment steps a second of one core")
        axis.legend(frameon=False)
    axes[0][0].set_ylabel(f"return of the first {steps} steps")
    figure.suptitle("Planned every 1, 2, 5 or 10 steps (numbers beside the points; bars: 95 % intervals)", fontsize=10)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="TASK=FOLDER", help="trained checkpoints")
    parser.add_argument("--work", type=Path, required=True, help="folder of the cells that are done")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--steps", type=int, default=200, help="at which episodes are cut off")
    parser.add_argument("--replan", type=int, nargs="+", default=list(REPLAN))
    parser.add_argument("--output", help="write the numbers to this JSON file")
    parser.add_argument("--picture", type=Path, help="and this picture of them")
    args = parser.parse_args()
    torch.set_num_threads(1)
    models = {task: Path(folder) for task, folder in (pair.split("=", 1) for pair in args.models)}
    cells = {}
    for replan_every, (task, model), warm in product(args.replan, models.items(), (False, True)):
        config = replace(saved_planner(model), **SEARCH, replan_every=replan_every, warm_start=warm)
        name = f"{task}/{replan_every}{'-warm' if warm else ''}"
        cell = run(model, config, args.work / name, args.episodes, args.steps)
        mean, width = interval(cell["returns"])
        cells[name] = {
            **{"task": task, "replan_every": replan_every, "warm_start": warm, "mean": mean, "half_interval_95": width},
            "steps_per_process_second": cell["steps"] / cell["process_seconds"],
            **cell,
        }
        print(f"{name}: {mean:.0f} ± {width:.0f}, {cells[name]['steps_per_process_second']:.1f} steps/s", flush=True)
    if args.output:
        write(args.output, {"episodes": args.episodes, "steps": args.steps, "threads": 1, "cells": cells})
    if args.picture:
        draw(cells, args.picture, args.steps)


if __name__ == "__main__":
    main()
