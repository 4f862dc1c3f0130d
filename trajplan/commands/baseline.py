"""`trajplan baseline`: train one of the methods that the Trajectory Transformer is compared with."""

import argparse
import sys

from trajplan.baseline_training import baseline
from trajplan.baselines.engine.settings import RunConfig
from trajplan.baselines.registry import METHODS
from trajplan.commands.run_datasets import datasets_of_run
from trajplan.config import given
from trajplan.devices import choose_device


def run(args: argparse.Namespace) -> int:
    """Run `trajplan baseline`; 130 if it was interrupted."""
    choose_device(args.device)
    ids, resumed = datasets_of_run(args)
    if args.resume and not resumed:
        print(f"{args.output} holds no run yet: starting from the beginning.")
    settings = given(args, METHODS[args.method].config_class()) | given(args, RunConfig)
    result = baseline(args.method, ids, args.output, resume=args.resume, device=args.device, **settings)
    if result.interrupted:
        print(
            f"Stopped after {result.updates} updates, saved. Resume with: "
            f"trajplan baseline {args.method} --resume --output {args.output}",
            file=sys.stderr,
        )
        return 130
    print(f"Trained for {result.updates} updates: {args.output}")
    return 0
