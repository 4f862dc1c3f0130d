"""The options of `trajplan baseline`, and of each method."""

import argparse
from functools import partial
from typing import Any

from trajplan.baselines.engine.settings import RunConfig
from trajplan.baselines.registry import METHODS
from trajplan.commands.options.runs import add_run_arguments
from trajplan.config import add_arguments as add_config_arguments


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
