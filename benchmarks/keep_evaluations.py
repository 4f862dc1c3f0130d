"""Keep evaluations of one trained model with several settings of its planner: label, command, settings, scores."""

import argparse
import json
from pathlib import Path

from record import write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("evaluations", nargs="+", metavar="LABEL=DIR", help="folders of evaluation.json")
    parser.add_argument("--commands", nargs="+", required=True, help="the commands that made them, as they were typed")
    parser.add_argument("--note", help="what a reader must know")
    parser.add_argument("--output", type=Path, required=True, help="JSON file")
    args = parser.parse_args()
    kept = {}
    for label, folder in (pair.split("=", 1) for pair in args.evaluations):
        evaluation = json.loads((Path(folder) / "evaluation.json").read_text())
        kept[label] = {
            "planner": evaluation["planner"],
            "model_sha256": evaluation["model_sha256"],
            "summary": evaluation["summary"],
            "returns": [round(episode["return"], 1) for episode in evaluation["episodes"]],
            "seconds": round(evaluation["timing"]["seconds"], 1),
        }
    note = {"note": args.note} if args.note else {}
    write(args.output, {"commands": args.commands} | note | {"evaluations": kept})


if __name__ == "__main__":
    main()
