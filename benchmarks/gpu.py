"""What is claimed of a GPU, tried on the one that is here: tests, speeds and a resumed training, in one table.

`make gpu` runs it, in under ten minutes. Each part is a process of its own; one that fails is named in the table and
does not stop the others. It needs no dataset and no simulator: the data are drawn at random.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from record import write

HERE = Path(__file__).resolve().parent
LIMIT = 570  # seconds for all parts together


@dataclass(frozen=True)
class Part:
    """One process and what is read from it.

    Attributes:
        name: its key in the results.
        words: of a Python command, in the repository's folder; `{output}` is the file that it writes.
        read: from the written JSON to the measured number; None: the part holds if it exits with 0.
        what, unit: for the table.
        aim: the least number; None: nothing is asked of it.
    """

    name: str
    words: tuple[str, ...]
    what: str
    read: Callable[[Mapping[str, Any]], float] | None = None
    unit: str = ""
    aim: float | None = None


def _plans(values: Mapping[str, Any]) -> float:
    return values["problems"]["hopper"]["plans_per_second"]


def _updates(method: str) -> Callable[[Mapping[str, Any]], float]:
    return lambda values: max(values["methods"][method]["updates_per_second"])


def _updates_together(method: str) -> Callable[[Mapping[str, Any]], float]:
    return lambda values: max(values["methods"][method]["updates_per_second_together"])


def _tokens(values: Mapping[str, Any]) -> float:
    return values["tokens_per_second"]


PLANS = ("benchmarks/plan_speed.py", "--device", "cuda", "--no-plain", "--problems", "hopper", "--output", "{output}")
UPDATES = ("benchmarks/baseline_speed.py", "--device", "cuda", "--turns", "2", "--output", "{output}")
TOGETHER = ("benchmarks/seeds_together.py", "--device", "cuda", "--turns", "2", "--output", "{output}")
TOKENS = ("benchmarks/train_speed.py", "--updates", "30", "--precision", "bf16", "--output", "{output}")

PARTS = (
    Part("tests", ("-m", "pytest", "-m", "gpu", "-p", "no:xdist"), "tests marked gpu"),
    Part(
        "resume",
        ("benchmarks/gpu_resume.py",),
        "bf16 training, stopped and resumed, has the weights of an unbroken one",
    ),
    Part("plan", (*PLANS, "--batch", "1", "--repeats", "20"), "hopper plans, one environment", _plans, "/s", 25),
    Part("plan-batch", (*PLANS, "--batch", "64", "--repeats", "5"), "hopper plans, 64 environments", _plans, "/s", 300),
    Part(
        "iql", (*UPDATES, "--methods", "iql", "--updates", "5000"), "captured IQL updates", _updates("iql"), "/s", 5000
    ),
    Part("cql", (*UPDATES, "--methods", "cql", "--updates", "8000"), "captured CQL updates", _updates("cql"), "/s"),
    Part(
        "iql-together",
        (*TOGETHER, "--methods", "iql", "--updates", "5000"),
        "captured IQL updates of 5 seeds together, over all of them",
        _updates_together("iql"),
        "/s",
        18_500,
    ),
    Part(
        "cql-together",
        (*TOGETHER, "--methods", "cql", "--updates", "4000"),
        "captured CQL updates of 5 seeds together, over all of them",
        _updates_together("cql"),
        "/s",
    ),
    Part("train", TOKENS, "training tokens in bf16, hopper at 256 windows", _tokens, "/s"),
    Part("train-compiled", (*TOKENS, "--compile"), "the same, compiled", _tokens, "/s"),
    Part("train-eager", (*TOKENS, "--attention", "eager"), "the same, attention written out", _tokens, "/s"),
    Part(
        "train-flash",
        (*TOKENS, "--attention", "flash_attention_2", "--attn-pdrop", "0"),
        "the same, flash-attn's kernel",
        _tokens,
        "/s",
    ),
)


def run(part: Part, folder: Path, limit: float) -> dict[str, Any]:
    """Run one part for at most `limit` seconds; its seconds, and its number or the last line of its failure."""
    output, started = folder / f"{part.name}.json", time.perf_counter()
    words = [word.replace("{output}", str(output)) for word in part.words]
    try:
        done = subprocess.run(
            [sys.executable, *words], cwd=HERE.parent, capture_output=True, text=True, timeout=limit, check=False
        )
        status, said = done.returncode, (done.stdout + done.stderr).strip()
    except subprocess.TimeoutExpired:
        status, said = -1, f"not done after {limit:.0f} s"
    result: dict[str, Any] = {"seconds": round(time.perf_counter() - started, 1), "ok": status == 0}
    if status:
        return result | {"failure": said.splitlines()[-1] if said else f"exit status {status}"}
    return result | ({"value": part.read(json.loads(output.read_text()))} if part.read else {})


def row(part: Part, result: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """What, aim, measured, and whether it held."""
    aim = "passes" if part.read is None else ("" if part.aim is None else f"{part.aim:,.0f}{part.unit}")
    if not result["ok"]:
        return part.what, aim, f"failed: {result['failure']}", "no"
    if part.read is None:
        return part.what, aim, f"passed in {result['seconds']:.0f} s", "yes"
    held = "" if part.aim is None else ("yes" if result["value"] >= part.aim else "no")
    return part.what, aim, f"{result['value']:,.1f}{part.unit}", held


def table(rows: list[tuple[str, str, str, str]]) -> str:
    """Rows under their heads, in columns."""
    rows = [("", "aim", "measured", "held"), *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def main() -> int:
    """Run all parts; 1 if one fails or misses its aim. Without a GPU there is nothing to do, and 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", help="write the numbers to this JSON file")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("There is no GPU here that PyTorch can use: nothing to measure.")
        return 0
    results, rows, started = {}, [], time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for number, part in enumerate(PARTS, 1):
            print(f"{number} of {len(PARTS)}: {part.what} ...", file=sys.stderr, flush=True)
            results[part.name] = run(part, Path(folder), max(1.0, LIMIT - (time.perf_counter() - started)))
            rows.append(row(part, results[part.name]))
    print(table(rows))
    if args.output:
        write(args.output, {"parts": results, "table": rows})
    return int(any(held == "no" for *_, held in rows))


if __name__ == "__main__":
    sys.exit(main())
