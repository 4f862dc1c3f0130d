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
from typing import Any

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
    losses: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as temporary:
        for number, seed in enumerate(args.seeds, 1):
            for way, changes in WAYS.items():
                config = replace(settings, seed=seed, **changes)
                losses[way].append(run(dataset, (args.folder or Path(temporary)) / f"{way}-{seed}", config))
                print(f"seed {seed}, {way}: {losses[way][-1]}", flush=True)
            numbers = {"dataset": dataset.id, "settings": to_dict(settings), "seeds": args.seeds[:number]}
            if args.output:
                write(args.output, numbers | summary(losses))
    print(summary(losses))


def summary(losses: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """The losses of each way, by seed, and by how much those in bfloat16 are higher."""
    columns = {way: {name: [row[name] for row in rows] for name in rows[0]} for way, rows in losses.items()}
    float32, bfloat16 = (columns[way]["held_out_in_float32"] for way in WAYS)
    higher = [b - a for a, b in zip(float32, bfloat16, strict=True)]
    across = statistics.stdev(float32) if len(float32) > 1 else None
    return {"losses": columns, "bfloat16_higher_by": higher, "standard_deviation_of_float32": across}


if __name__ == "__main__":
    main()
