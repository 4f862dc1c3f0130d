"""`trajplan push`: share a checkpoint on the Hugging Face hub."""

import argparse

from trajplan.hub import push


def run(args: argparse.Namespace) -> int:
    """Push, and print what was sent and where it is."""
    address, files = push(
        args.checkpoint,
        args.name,
        private=args.private or None,
        license=args.license,
        evaluation=args.evaluation,
    )
    for name in files:
        print(f"sent      {name}")
    print(f"commit    {address}")
    if args.license is None:
        print("licence   none is named; --license NAME says what others may do with the weights")
    print(f'load it   trajplan.load("{args.name}")')
    return 0
