"""`trajplan train`: pretraining on one dataset."""

import argparse
import os
import sys
from pathlib import Path

from trajplan.commands.run_datasets import datasets_of_run
from trajplan.config import given
from trajplan.pretraining import train
from trajplan.training.config import TrainConfig


def run(args: argparse.Namespace) -> int:
    """Run `trajplan train`; 130 if it was interrupted."""
    output: Path = args.output
    ids, _ = datasets_of_run(args)
    settings = given(args, TrainConfig)
    how = {"context": args.context, "resume": args.resume, "device": args.device}
    result = train(ids, output, args.preset, **how, **settings)
    if os.environ.get("RANK", "0") != "0":
        return 130 if result.interrupted else 0
    if result.interrupted:
        print(
            f"Stopped after {result.updates} updates, saved. Resume with: trajplan train --resume --output {output}",
            file=sys.stderr,
        )
        return 130
    print(f"{result}\n{output}")
    return 0
