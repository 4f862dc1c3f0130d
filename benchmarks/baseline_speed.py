"""Updates a second of every baseline at its published network sizes, in the trainer's own loop.

python benchmarks/baseline_speed.py [--methods iql cql] [--updates 1000] [--observation-dim 11] [--action-dim 3]

Data of Hopper's sizes, batches of 256. Methods with a dynamics model train it for one epoch first, which is not in the
number; their rollouts are. With `--beside PYTHON --arrays FILE`, an interpreter that has d3rlpy and a file of
`beside/export_arrays.py`, d3rlpy's updates a second are measured too, in turns with ours, and their ratio.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from record import write
from train_speed import synthetic

from trajplan.baselines.dynamics.settings import ModelBasedConfig
from trajplan.baselines.engine.settings import RunConfig
from trajplan.baselines.engine.trainer import train
from trajplan.baselines.registry import METHODS
from trajplan.runs.metrics import read_metrics

PARTS = 5  # the first is warm-up, of the others the median counts
# An update of these asks Q about 31 actions a state: fewer of them are measured.
HEAVY = {"cql": 8, "combo": 8}


def updates_per_second(dataset, name: str, updates: int, device: str) -> float:  # type: ignore[no-untyped-def]
    config = METHODS[name].config_class()()
    if isinstance(config, ModelBasedConfig):
        config = replace(config, model_max_epochs=1)
    run = RunConfig(updates=updates, log_every=max(updates // PARTS, 1), save_every=updates, eval_every=0)
    with tempfile.TemporaryDirectory() as folder:
        train(dataset, folder, name, config, run, device=device, progress=False)
        speeds = [line["updates_per_second"] for line in read_metrics(folder)]
    return statistics.median(speeds[1:] or speeds)


def of_d3rlpy(python: str, arrays: str, name: str, updates: int, threads: int) -> float:
    script = Path(__file__).parent / "beside" / "run_d3rlpy.py"
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "speed.json"
        command = [python, script, name, Path(arrays).resolve(), "--episodes", "0", "--output", output]
        command += ["--updates", updates, "--every", max(updates // PARTS, 1), "--threads", threads]
        subprocess.run([str(part) for part in command], check=True, capture_output=True, cwd=folder)
        speeds = json.loads(output.read_text())["updates_per_second"]
    return statistics.median(speeds[1:] or speeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    parser.add_argument("--updates", type=int, default=1000, help="of each method; of CQL and COMBO an eighth")
    parser.add_argument("--observation-dim", type=int, default=11)
    parser.add_argument("--action-dim", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=1, help="measurements of each method")
    parser.add_argument("--beside", metavar="PYTHON", help="an interpreter that has d3rlpy (2.8.1)")
    parser.add_argument("--arrays", help="npz of beside/export_arrays.py, for d3rlpy")
    parser.add_argument("--output", help="write the numbers to this JSON file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    dataset = synthetic(args.observation_dim, args.action_dim)
    measured = {}
    for name in args.methods:
        ours, theirs, updates = [], [], args.updates // HEAVY.get(name, 1)
        for _ in range(args.turns):
            ours.append(round(updates_per_second(dataset, name, updates, args.device), 1))
            line = f"{name:6} {ours[-1]:8,.1f} updates a second"
            if args.beside:
                theirs.append(round(of_d3rlpy(args.beside, args.arrays, name, updates, args.threads), 1))
                line += f", d3rlpy {theirs[-1]:8,.1f}: {ours[-1] / theirs[-1]:.1f} times"
            print(line, flush=True)
        measured[name] = {"updates": updates, "updates_per_second": ours}
        if theirs:
            ratios = [round(a / b, 2) for a, b in zip(ours, theirs, strict=True)]
            measured[name] |= {"d3rlpy": theirs, "ratio": round(statistics.median(ratios), 2), "ratio_by_turn": ratios}
    if args.output:
        sizes = {"observation_dim": args.observation_dim, "action_dim": args.action_dim, "batch_size": 256}
        write(args.output, {"device": args.device, "threads": args.threads, **sizes, "methods": measured})


if __name__ == "__main__":
    main()
