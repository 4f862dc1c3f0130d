"""What the commands that train have in common: which dataset, which folder, and whether to go on with a run."""

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
        help="continue the run in DIR from its newest checkpoint, with its settings; the result is the same as "
        "without the interruption",
    )


def datasets_of_run(args: argparse.Namespace) -> tuple[list[str], bool]:
    """The Minari ids to train on, and whether a run is continued.

    Raises:
        CheckpointError: if the folder holds something that a new run would write over.
        ConfigError: if no dataset is named, and there is no run that knows its own.
    """
    from trajplan.training.resume import holds_run, refuse_existing, saved_datasets

    continued = args.resume and holds_run(args.output)
    if not continued:
        refuse_existing(args.output, resume=args.resume)
    ids = args.dataset or (saved_datasets(args.output) if continued else None)
    if ids is None:
        reason = f"{args.output} holds no run to resume" if args.resume else "a new run needs one"
        raise ConfigError(f"Name a dataset with --dataset ID: {reason}.")
    return ids, continued
