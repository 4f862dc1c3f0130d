"""Whether training in bfloat16 costs loss: the same short runs in float32 and in bfloat16, seed by seed.

python benchmarks/precision_loss.py --dataset bench/hopper/medium-replay-v0 [--seeds 0 1 2] [--SETTING VALUE ...]

The float32 runs compute attention as torch does (sdpa), those in bfloat16 as is the default on a CPU. Held-out losses
are measured twice: as the runs measure them, in their own precision, and of the final weights in float32. With
`--folder` the runs are kept there, and a second call reads those that are finished.
"""

import argparse
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from record import write

from trajplan.config import add_arguments, given, to_dict
from trajplan.data.dataset import OfflineDataset
from trajplan.runs.metrics import read_metrics
from trajplan.training.batches import TokenTable
from trajplan.training.checkpoint import load_model_folder
from trajplan.training.config import TrainConfig
from trajplan.training.evaluate_loss import HeldOut
from trajplan.training.loop import train

WAYS = {"float32": {"precision": "no", "attention": "sdpa"}, "bfloat16": {"precision": "bf16"}}


def run(dataset: OfflineDataset, folder: Path, config: TrainConfig) -> dict[str, float]:
    """Train, unless that is done, and give the losses after the last update."""
    metrics = read_metrics(folder) if (folder / "metrics.jsonl").exists() else []
    if not metrics or metrics[-1]["update"] != config.updates:
        train(dataset, folder, config, resume=folder.exists(), device="cpu")
        AcceleratorState._reset_state(reset_partial_state=True)
        metrics = read_metrics(folder)
    last = metrics[-1]
    return {"held_out": last["held_out/loss"], "held_out_in_float32": in_float32(dataset, folder, config)}


def in_float32(dataset: OfflineDataset, folder: Path, config: TrainConfig) -> float:
    loaded = load_model_folder(folder)
    table = TokenTable(dataset, loaded.tokenizer, config, torch.device("cpu"))
    windows = dataset.windows(config.window, episodes=dataset.split(config.held_out, config.seed)[1])
    measured = HeldOut(table, windows, config.eval_windows, config.batch_size)
    losses = measured.losses(loaded.model, Accelerator(cpu=True))
    AcceleratorState._reset_state(reset_partial_state=True)
    return losses["loss"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, help="keep the runs here")
    parser.add_argument("--output", help="write the numbers to this JSON file")
    add_arguments(parser, TrainConfig, "settings")
    args = parser.parse_args()
    settings = replace(TrainConfig(updates=1000), **given(args, TrainConfig))
    # The last update is the only one measured, so that its weights are the ones that the folder keeps.
    settings = replace(settings, eval_every=settings.updates or 1000, save_every=settings.updates or 1000)
    dataset = OfflineDataset.from_minari(args.dataset)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        losses: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for seed in args.seeds:
            for way, changes in WAYS.items():
                config = replace(settings, seed=seed, **changes)
                losses[way].append(run(dataset, folder / f"{way}-{seed}", config))
                print(f"seed {seed}, {way}: {losses[way][-1]}", flush=True)
    columns = {way: {name: [row[name] for row in rows] for name in rows[0]} for way, rows in losses.items()}
    pairs = zip(*(columns[way]["held_out_in_float32"] for way in WAYS), strict=True)
    differences = [bfloat16 - float32 for float32, bfloat16 in pairs]
    across = statistics.stdev(columns["float32"]["held_out_in_float32"]) if len(args.seeds) > 1 else None
    print(f"bfloat16 - float32, seed by seed: {differences}; standard deviation of float32 over the seeds: {across}")
    if args.output:
        numbers = {"differences": differences, "standard_deviation_over_seeds": across}
        write(args.output, {"dataset": dataset.id, "settings": to_dict(settings), "losses": columns} | numbers)


if __name__ == "__main__":
    main()
