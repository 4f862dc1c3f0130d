"""Updates a second of every baseline at its published network sizes, in the trainer's own loop.

python benchmarks/baseline_speed.py [--methods iql cql] [--updates 1000] [--observation-dim 11] [--action-dim 3]

Data of Hopper's sizes, batches of 256. Methods with a dynamics model train it for one epoch first, which is not in the
number; their rollouts are.
"""

import argparse
import statistics
import tempfile
from dataclasses import replace

import torch
from record import write
from train_speed import synthetic

from trajplan.baselines.model_settings import ModelBasedConfig
from trajplan.baselines.registry import METHODS
from trajplan.baselines.settings import RunConfig
from trajplan.baselines.trainer import train
from trajplan.training.metrics import read_metrics

PARTS = 5  # the first is warm-up, of the others the median counts


def updates_per_second(dataset, name: str, updates: int, device: str) -> float:  # type: ignore[no-untyped-def]
    config = METHODS[name].config_class()()
    if isinstance(config, ModelBasedConfig):
        config = replace(config, model_max_epochs=1)
    run = RunConfig(updates=updates, log_every=max(updates // PARTS, 1), save_every=updates, eval_every=0)
    with tempfile.TemporaryDirectory() as folder:
        train(dataset, folder, name, config, run, device=device, progress=False)
        speeds = [line["updates_per_second"] for line in read_metrics(folder)]
    return statistics.median(speeds[1:] or speeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    parser.add_argument("--updates", type=int, default=1000, help="of each method")
    parser.add_argument("--observation-dim", type=int, default=11)
    parser.add_argument("--action-dim", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", help="write the numbers to this JSON file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    dataset = synthetic(args.observation_dim, args.action_dim)
    speeds = {}
    for name in args.methods:
        speeds[name] = updates_per_second(dataset, name, args.updates, args.device)
        print(f"{name:6} {speeds[name]:8,.1f} updates a second", flush=True)
    if args.output:
        sizes = {"observation_dim": args.observation_dim, "action_dim": args.action_dim, "batch_size": 256}
        write(args.output, {"device": args.device, "threads": args.threads, **sizes, "updates_per_second": speeds})


if __name__ == "__main__":
    main()
