"""`trajplan baseline`: train one of the methods that the Trajectory Transformer is compared with."""

import argparse
import sys
from functools import partial
from typing import Any

from trajplan.baselines.engine.settings import RunConfig
from trajplan.baselines.registry import METHODS
from trajplan.commands.run_arguments import add_run_arguments, datasets_of_run
from trajplan.config import add_arguments as add_config_arguments
from trajplan.config import given


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `trajplan baseline`."""
    parser.epilog = "trajplan baseline METHOD --help lists the settings of a method."
    methods: Any = parser.add_subparsers(dest="method", metavar="METHOD", required=True)
    for name, entry in METHODS.items():
        chosen = methods.add_parser(name, help=entry.summary, description=f"{entry.summary}.")
        # Only for the chosen method, as its file is imported for it.
        chosen.complete = partial(_add_options, name)


def _add_options(method: str, parser: argparse.ArgumentParser, words: list[str]) -> None:
    add_run_arguments(parser)
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    note = "where published settings differ by environment, those are taken"
    add_config_arguments(parser, METHODS[method].config_class(), f"settings of the method ({note})")
    add_config_arguments(parser, RunConfig, f"settings of the run ({note})")


def run(args: argparse.Namespace) -> int:
    """Run `trajplan baseline`; 130 if it was interrupted."""
    from trajplan.baseline_training import baseline
    from trajplan.devices import choose_device

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
