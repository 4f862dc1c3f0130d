"""`trajplan dynamics`: learn a dynamics ensemble, to plan on."""

import argparse
import sys

from trajplan.baselines.dynamics.settings import DynamicsConfig
from trajplan.commands.run_datasets import datasets_of_run
from trajplan.config import given
from trajplan.devices import choose_device
from trajplan.dynamics_training import dynamics


def run(args: argparse.Namespace) -> int:
    """Run `trajplan dynamics`; 130 if it was interrupted."""
    choose_device(args.device)
    ids, resumed = datasets_of_run(args)
    if args.resume and not resumed:
        print(f"{args.output} holds no run yet: starting from the beginning.")
    result = dynamics(ids, args.output, resume=args.resume, device=args.device, **given(args, DynamicsConfig))
    if result.interrupted:
        print(
            f"Stopped after {result.updates} updates, saved after the last whole epoch. Resume with: "
            f"trajplan dynamics --resume --output {args.output}",
            file=sys.stderr,
        )
        return 130
    print(f"Trained for {result.updates} updates: {args.output}")
    return 0
