"""The options of `trajplan push`."""

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
