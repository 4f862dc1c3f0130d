"""Keep what `make quickstart` showed: its numbers and times, and the picture of its plans for the README."""

import argparse
import json
import shutil
from pathlib import Path

from record import write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="written by `make quickstart`")
    parser.add_argument("--minutes", type=float, required=True, help="of the whole command from a fresh clone")
    parser.add_argument("--output", type=Path, required=True, help="JSON file")
    parser.add_argument("--picture", type=Path, required=True, help="where the picture goes")
    args = parser.parse_args()
    results = json.loads((args.folder / "report" / "results.json").read_text())
    minutes = {"wall, installation included, from a fresh clone": args.minutes}
    write(args.output, {"command": "make quickstart", "minutes": minutes, "results": results})
    shutil.copyfile(args.folder / "report" / "plan.png", args.picture)


if __name__ == "__main__":
    main()
