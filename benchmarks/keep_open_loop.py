"""Keep an open-loop measurement: the command that made it, and its curves."""

import argparse
import json
from pathlib import Path

from record import write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("measured", type=Path, help="open_loop.json, written by `trajplan evaluate --open-loop`")
    parser.add_argument("--commands", nargs="+", required=True, help="the commands that made it, as they were typed")
    parser.add_argument("--output", type=Path, required=True, help="JSON file")
    args = parser.parse_args()
    report = json.loads(args.measured.read_text())
    for curves in report["errors"].values():
        curves.update({kind: [error and round(error, 4) for error in curve] for kind, curve in curves.items()})
    write(args.output, {"commands": args.commands} | report)


if __name__ == "__main__":
    main()
