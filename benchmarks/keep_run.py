"""Keep what a training run and its evaluation showed: the commands, the settings, the learning curve and the scores."""

import argparse
import csv
import json
from pathlib import Path

from record import write

from trajplan.runs.metrics import read_metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a folder written by `trajplan train` and `trajplan evaluate`")
    parser.add_argument("--commands", nargs="+", required=True, help="the commands that made it, as they were typed")
    parser.add_argument("--output", type=Path, required=True, help="JSON file; the curve goes beside it as CSV")
    args = parser.parse_args()
    metrics = read_metrics(args.run)
    write(
        args.output,
        {
            "commands": args.commands,
            "training": json.loads((args.run / "training.json").read_text()),
            "last_metrics": metrics[-1],
            "evaluation": json.loads((args.run / "evaluation.json").read_text()),
        },
    )
    columns = sorted({key for line in metrics for key in line}, key=lambda key: (key != "update", key))
    with args.output.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(metrics)


if __name__ == "__main__":
    main()
