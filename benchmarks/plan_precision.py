"""Scores of the best plan in bfloat16 beside float32's, over states and contexts of the data that a model learned from.

Both plan from the same states with the same noise; the tolerance is on the mean score, and single plans are told, too.
"""

import argparse
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from record import write

import trajplan
from trajplan.hub import load_policy
from trajplan.planners.settings import describe_planner, saved_planner

BATCH = 10


def situations(dataset: trajplan.OfflineDataset, count: int, context: int) -> tuple[torch.Tensor, torch.Tensor]:
    """States (N, S) and the transitions before them (N, C, S + A + 1), drawn from all that have as many before them."""
    rows = dataset.joined()[:, :-1]
    episodes = pairwise(dataset.offsets)
    starts = np.concatenate([np.arange(first, end - context) for first, end in episodes])
    chosen = np.random.default_rng(0).choice(starts, count, replace=False)
    past = torch.from_numpy(np.stack([rows[start : start + context] for start in chosen]))
    states = rows[chosen + context, : dataset.info.observation_dim]
    return torch.from_numpy(states).float(), past.float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="TASK=FOLDER=DATASET", help="trained checkpoints and their data")
    parser.add_argument("--states", type=int, default=200)
    parser.add_argument("--horizon", type=int, default=5)
    parser.add_argument("--beam-width", type=int, default=8)
    parser.add_argument("--output", help="write the numbers to this JSON file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    for task, folder, data in (text.split("=", 2) for text in args.models):
        model = Path(folder)
        config = replace(saved_planner(model), horizon=args.horizon, beam_width=args.beam_width)
        states, past = situations(trajplan.OfflineDataset.from_minari(data), args.states, config.context)
        best = {}
        for precision in ("float32", "bfloat16"):
            planner = load_policy(model, device="cpu", planner=config, precision=precision).planner
            scores = []
            for first in range(0, args.states, BATCH):
                rows = range(first, min(first + BATCH, args.states))
                noise = [torch.Generator().manual_seed(row) for row in rows]
                _, plans = planner.plan(states[rows.start : rows.stop], past[rows.start : rows.stop], noise)
                scores.append(plans.scores[:, 0])
            best[precision] = torch.cat(scores).double()
        difference = best["bfloat16"] - best["float32"]
        relative = difference.abs() / best["float32"].abs()
        results[task] = {
            "mean_score": {name: float(scores.mean()) for name, scores in best.items()},
            "difference_of_means": float(difference.mean() / best["float32"].mean()),
            "relative_difference": {q: float(relative.quantile(float(q))) for q in ("0.5", "0.9", "1.0")},
            "settings": describe_planner(config),
        }
        print(task, results[task], flush=True)
    if args.output:
        write(args.output, {"states": args.states, "tasks": results})


if __name__ == "__main__":
    main()
