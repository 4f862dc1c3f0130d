"""What the commands that train have in common: which dataset, which folder, and whether to resume a run."""

import argparse

from trajplan.errors import ConfigError
from trajplan.runs.folder import resumes, saved_datasets


def datasets_of_run(args: argparse.Namespace) -> tuple[list[str], bool]:
    """The Minari ids to train on, and whether a run is resumed."""
    resumed = resumes(args.output, args.resume)
    ids = args.dataset or (saved_datasets(args.output) if resumed else None)
    if ids is None:
        reason = f"{args.output} holds no run to resume" if args.resume else "a new run needs one"
        raise ConfigError(f"Name a dataset with --dataset ID: {reason}.")
    return ids, resumed
