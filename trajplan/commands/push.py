"""`trajplan push`: share a checkpoint on the Hugging Face hub."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("checkpoint", metavar="DIR", help="checkpoint folder, as trajplan train writes it")
    parser.add_argument("name", metavar="USER/NAME", help="model repository on the hub; made if it does not exist")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--license", help="licence of the weights, such as mit or apache-2.0 (default: none is named)")
    parser.add_argument(
        "--evaluation",
        metavar="DIR",
        help="results to share, as trajplan evaluate --output DIR wrote them (default: those in the checkpoint folder)",
    )


def run(args: argparse.Namespace) -> int:
    """Push, and print what was sent and where it is."""
    from trajplan.hub import push

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
