"""Keep what the page "Your own data" quotes: the planner and the cloning, by seed of the training."""

import argparse
import json
from pathlib import Path
from typing import Any

from record import write

from trajplan.runs.metrics import read_metrics


def evaluated(folder: Path) -> dict[str, Any]:
    """Return, episodes and seed of an evaluation."""
    evaluation = json.loads((folder / "evaluation.json").read_text())
    kept = evaluation["summary"]["return"]
    return {
        "return": round(kept["mean"], 1),
        "interval_95": [round(bound, 1) for bound in kept["interval_95"]],
        "episodes": len(evaluation["episodes"]),
        "first_seed": evaluation["seed"],
        "evaluation_seconds": round(evaluation["timing"]["seconds"], 1),
    }


def trained(folder: Path) -> dict[str, Any]:
    """Updates and seconds of a training, and which update its weights are of."""
    last = read_metrics(folder)[-1]
    run = folder / "run.json"
    about = {"run": json.loads(run.read_text())} if run.exists() else {}
    return {"updates": last["update"], "seconds": round(last["seconds"], 1)} | about


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True, help="folder of pendulum-SEED and bc-SEED")
    parser.add_argument("--commands", nargs="+", required=True, help="the commands that made it, as they were typed")
    parser.add_argument("--output", type=Path, required=True, help="JSON file")
    args = parser.parse_args()
    seeds = sorted(int(folder.name.rpartition("-")[2]) for folder in args.runs.glob("pendulum-*"))
    runs = {
        name: {
            str(seed): trained(args.runs / f"{name}-{seed}") | evaluated(args.runs / f"{name}-{seed}") for seed in seeds
        }
        for name in ("pendulum", "bc")
    }
    info = json.loads((args.runs / f"pendulum-{seeds[0]}" / "dataset.json").read_text())
    data = {name: info[name] for name in ("id", "num_transitions", "num_episodes", "mean_return")}
    write(args.output, {"commands": args.commands, "data": data, "runs": runs})


if __name__ == "__main__":
    main()
