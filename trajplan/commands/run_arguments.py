"""What the commands that train have in common: which dataset, which folder, and whether to resume a run."""

import argparse
from pathlib import Path

from trajplan.errors import ConfigError


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


def datasets_of_run(args: argparse.Namespace) -> tuple[list[str], bool]:
    """The Minari ids to train on, and whether a run is resumed."""
    from trajplan.runs.folder import resumes, saved_datasets

    resumed = resumes(args.output, args.resume)
    ids = args.dataset or (saved_datasets(args.output) if resumed else None)
    if ids is None:
        reason = f"{args.output} holds no run to resume" if args.resume else "a new run needs one"
        raise ConfigError(f"Name a dataset with --dataset ID: {reason}.")
    return ids, resumed
