"""Keep what a comparison showed: the command, every cell's scores and cost, and what it measured on the way."""

import argparse
import csv
import json
from pathlib import Path
from typing import Any

from record import provenance, write

from trajplan.runs.metrics import read_metrics

# Of a cell's evaluations during training, by their names in metrics.jsonl.
CURVES = {
    "return": "evaluation/return",
    "predicted_value": "evaluation/predicted_value",
    "discounted_return": "evaluation/discounted_return",
    "model_return": "model/return",
    "penalised_model_return": "model/penalised_return",
}
DROPPED = ("label", "seed", "folder")


def curves(model: Path) -> dict[str, dict[int, float]]:
    """By kind of number and update, what a training run logged of `CURVES`."""
    lines = read_metrics(model)
    found = {
        name: {line["update"]: round(line[key], 1) for line in lines if key in line} for name, key in CURVES.items()
    }
    return {name: values for name, values in found.items() if values}


def number(text: str) -> float | str:
    """A cell of the table as a number if it is one."""
    try:
        return round(float(text), 2)
    except ValueError:
        return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="written by `trajplan compare`")
    parser.add_argument("--command", required=True, help="the command that made it, as it was typed")
    parser.add_argument("--note", help="what a reader must know of it")
    parser.add_argument(
        "--beside",
        nargs="*",
        default=[],
        metavar="LABEL=FILE",
        help='a public implementation\'s run on the same data: JSON of "config" and "returns" by update',
    )
    parser.add_argument("--output", type=Path, required=True, help="JSON file")
    parser.add_argument(
        "--renew", action="store_true", help="put the cells into a file that is there, each with where it comes from"
    )
    args = parser.parse_args()
    cells: dict[str, Any] = {}
    with (args.folder / "comparison.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            scores = {name: number(value) for name, value in row.items() if value and name not in DROPPED}
            name = f"{row['label']}/{row['seed']}"
            cells[name] = scores | curves(args.folder / row["folder"] / "model")
    if args.renew:
        made = {name: provenance()[name] for name in ("commit", "date")} | {"command": args.command}
        recorded = json.loads(args.output.read_text())
        recorded["cells"] |= {name: cell | made for name, cell in cells.items()}
        args.output.write_text(json.dumps(recorded, indent=2) + "\n")
        return
    beside = {label: json.loads(Path(path).read_text()) for label, path in (pair.split("=", 1) for pair in args.beside)}
    numbers = {"command": args.command, "note": args.note, "cells": cells, "beside": beside}
    write(args.output, {name: value for name, value in numbers.items() if value})


if __name__ == "__main__":
    main()
