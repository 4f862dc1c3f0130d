"""A short training, once unbroken and once killed and resumed: the weights must be the same."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from train_speed import synthetic

from trajplan.training.config import TrainConfig
from trajplan.training.loop import train

LAST = "training_state/step-00000060"


def main() -> int:
    """Train twice; 1 if a weight differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", default="bf16", help="no where the processor has no bf16")
    args = parser.parse_args()
    dataset = synthetic(11, 3, episodes=40, length=200)
    config = TrainConfig(
        updates=60, save_every=30, eval_every=30, eval_windows=256, batch_size=64, precision=args.precision
    )
    with tempfile.TemporaryDirectory() as folder:
        whole, resumed = Path(folder, "whole"), Path(folder, "resumed")
        train(dataset, whole, config)
        # As if it had been killed between its two checkpoints.
        shutil.copytree(whole, resumed)
        shutil.rmtree(resumed / LAST)
        train(dataset, resumed, config, resume=True)
        first, second = (load_file(run / LAST / "model.safetensors") for run in (whole, resumed))
    different = [name for name, weight in first.items() if not torch.equal(weight, second[name])]
    print(f"{len(different)} of {len(first)} weights differ")
    return int(bool(different))


if __name__ == "__main__":
    sys.exit(main())
