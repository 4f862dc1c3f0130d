"""The options of `trajplan dynamics`."""

import argparse

from trajplan.baselines.dynamics.settings import DynamicsConfig
from trajplan.commands.options.runs import add_run_arguments
from trajplan.config import add_arguments as add_config_arguments

EPILOG = "trajplan evaluate DIR --planner NAME then plans on it, by cem where none is named."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `trajplan dynamics`."""
    parser.epilog = EPILOG
    add_run_arguments(parser)
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    add_config_arguments(parser, DynamicsConfig, "settings")
