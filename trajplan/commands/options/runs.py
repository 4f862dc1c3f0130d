"""Options that the commands which train have in common."""

import argparse
from pathlib import Path


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --dataset, --output and --resume."""
    parser.add_argument(
        "--dataset",
        metavar="ID",
        nargs="+",
        action="extend",
        help="Minari id of the dataset; several of one environment train as one (with --resume: the run's own)",
    )
    parser.add_argument("--output", metavar="DIR", required=True, type=Path, help="folder to write the model to")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="resume the run in DIR from its newest checkpoint, with its settings; the result is the same as without "
        "the interruption",
    )
