"""Keep evaluations over an environment's tasks, several training seeds of each method, as success rates in per cent.

Refused are evaluations that are not complete, not over all of the environment's tasks with equally many episodes each,
or not on the same episodes (environment, tasks, count, seed) as the others.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from record import write

from trajplan.evaluation.statistics import describe

SAME = ("environment", "tasks", "num_episodes", "seed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluations", nargs="+", metavar="LABEL=DIR", help="folders of evaluation.json, one a run")
    parser.add_argument("--commands", nargs="+", required=True, help="the commands that made them, as they were typed")
    parser.add_argument(
        "--against", metavar="LABEL", help="the method whose runs the others' are paired with, in order"
    )
    parser.add_argument("--published", nargs="*", default=[], metavar="METHOD=RATE", help="per cent, quoted")
    parser.add_argument("--source", help="where the published rates are quoted from")
    parser.add_argument("--note", help="what a reader must know")
    parser.add_argument("--output", type=Path, required=True, help="JSON file")
    args = parser.parse_args()
    if args.published and not args.source:
        parser.error("--published needs --source")
    runs: dict[str, list[dict[str, Any]]] = {}
    for label, folder in (pair.split("=", 1) for pair in args.evaluations):
        runs.setdefault(label, []).append(read(Path(folder)))
    first = next(iter(runs.values()))[0]
    for label, found in runs.items():
        for run in found:
            differing = [name for name in SAME if run[name] != first[name]]
            if differing:
                parser.error(f"{label} is not on the same episodes as the others: {', '.join(differing)} differ")
    kept = {label: rates(found) for label, found in runs.items()}
    for label, found in kept.items():
        tasks = ", ".join(f"{rate:.1f}" for rate in found["by_task"].values())
        print(f"{label:30s} {found['mean']:6.1f} ({len(found['runs'])} runs; by task {tasks})")
    differences = {}
    if args.against is not None:
        others = {label: found for label, found in runs.items() if label != args.against}
        differences = {label: paired(found, runs[args.against]) for label, found in others.items()}
        print(json.dumps(differences, indent=2))
    published = {name: float(rate) for name, rate in (pair.split("=", 1) for pair in args.published)}
    numbers = {"commands": args.commands, **{name: first[name] for name in SAME}, "success_rates": kept}
    numbers |= {"against": args.against, "differences": differences} if differences else {}
    numbers |= {"published": {"source": args.source, "rates": published}} if published else {}
    write(args.output, numbers | ({"note": args.note} if args.note else {}))


def read(folder: Path) -> dict[str, Any]:
    evaluation = json.loads((folder / "evaluation.json").read_text())
    if not evaluation["complete"] or not evaluation.get("tasks"):
        raise SystemExit(f"{folder}: the evaluation is not complete, or not over tasks.")
    tasks = evaluation["tasks"]
    counts = {found["episodes"] for found in evaluation["summary"]["tasks"].values()}
    if tasks != list(range(1, len(tasks) + 1)) or len(counts) > 1:
        raise SystemExit(f"{folder}: the evaluation is not over all tasks with equally many episodes.")
    return evaluation


def rates(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Per cent: of each run, their mean with its Student-t interval over runs, and the mean of each task."""
    overall = [100 * run["summary"]["success_rate"] for run in found]
    tasks = found[0]["summary"]["tasks"]
    by_task = {
        task: float(np.mean([100 * run["summary"]["tasks"][task]["success_rate"] for run in found])) for task in tasks
    }
    about = describe(overall)
    return {
        "mean": round(about["mean"], 2),
        "std": about["std"] and round(about["std"], 2),
        "interval_95": about["interval_95"] and [round(end, 2) for end in about["interval_95"]],
        "by_task": {task: round(rate, 2) for task, rate in by_task.items()},
        "runs": [
            {
                "success_rate": round(rate, 2),
                "model_sha256": run["model_sha256"],
                "planner": run["planner"],
                "dataset": run["dataset"]["id"],
                "seconds": run["timing"] and round(run["timing"]["seconds"], 1),
            }
            for rate, run in zip(overall, found, strict=True)
        ],
    }


def paired(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> dict[str, Any]:
    """Difference of success in per cent, run by run in the order given and episode by episode.

    `over_runs` tells how it may differ with other training seeds, `over_episodes` with other episodes of these runs.
    """
    if len(ours) != len(theirs):
        raise SystemExit(f"{len(ours)} runs cannot be paired with {len(theirs)}.")
    successes = [np.array([[e["success"] for e in run["episodes"]] for run in runs], float) for runs in (ours, theirs)]
    apart = 100 * (successes[0] - successes[1])
    kept = {}
    for name, values in (("over_runs", apart.mean(1)), ("over_episodes", apart.ravel())):
        about = describe(values)
        interval = about["interval_95"] and [round(end, 2) for end in about["interval_95"]]
        kept[name] = {"mean": round(about["mean"], 2), "interval_95": interval}
    return kept


if __name__ == "__main__":
    main()
