"""`trajplan compare`: train and evaluate several methods on one dataset, and report what came of it."""

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from trajplan.comparison.cells import Cell, unfinished
from trajplan.comparison.checks import check_device, check_environments, check_method
from trajplan.comparison.on_ray import run_on_ray
from trajplan.comparison.processes import run_here
from trajplan.comparison.report import render, text_table
from trajplan.comparison.results import by_method, load_results, write_csv
from trajplan.comparison.settings import EvaluationConfig, changed_flags, parse_methods, parse_settings
from trajplan.comparison.together import plan
from trajplan.comparison.work import run_cell
from trajplan.comparison.worker import Outcome
from trajplan.config import given, require
from trajplan.data.dataset import OfflineDataset
from trajplan.data.info import DatasetInfo
from trajplan.errors import ConfigError
from trajplan.files import refuse_file, replacing, writing


def run(args: argparse.Namespace) -> int:
    """Compare; 0 if every cell is finished, 130 when interrupted, 1 if some are not."""
    methods = parse_methods(args.methods)
    settings = parse_settings(args.set, methods)
    evaluation = EvaluationConfig(**given(args, EvaluationConfig))
    for name in ("seeds", "jobs"):
        require(getattr(args, name) >= 1, f"--{name}", getattr(args, name), "be at least 1")
    require(args.cpus_per_cell > 0, "--cpus-per-cell", args.cpus_per_cell, "be above 0")
    require(
        args.gpus_per_cell is None or args.gpus_per_cell >= 0, "--gpus-per-cell", args.gpus_per_cell, "be 0 or more"
    )
    if args.ray is not None and args.seeds_together == "yes":
        raise ConfigError("--ray works cell by cell: leave out --seeds-together yes, or --ray.")
    refuse_file(args.output)

    dataset = args.dataset[0] if len(args.dataset) == 1 else tuple(args.dataset)

    def cell(label: str, seed: int) -> Cell:
        return Cell(label, methods[label], seed, dataset, args.output, settings[label], evaluation)

    if args.cell is not None:
        return _work(cell(*_cell_name(args.cell, methods)), args.device)
    # Methods in the inner loop: a comparison that is cut short has some runs of each.
    cells = [cell(label, seed) for seed in range(args.seeds) for label in methods]
    info = _check(cells, args.device, simulators=not args.report)
    left = {cell: reason for cell in cells if (reason := unfinished(cell)) is not None}
    if args.dry_run:
        print(f"{len(cells) - len(left)} of {len(cells)} cells are finished.", file=sys.stderr)
        print("".join(shlex.join(cell.command(args.device)) + "\n" for cell in left), end="")
        return 0
    if args.report:
        missing, status = left, 0
        _name_missing(missing)
    else:
        missing, status = _run_all(cells, list(left), info, args)
    words = ["trajplan", "compare", "--dataset", *args.dataset, "--methods", args.methods, f"--seeds={args.seeds}"]
    words += [*changed_flags(evaluation), "--output", str(args.output), *(["--set", *args.set] if args.set else [])]
    _write(args.output, cells, info, missing, shlex.join(words))
    return status


def _cell_name(text: str, methods: Mapping[str, str]) -> tuple[str, int]:
    label, _, seed = text.partition("/")
    if label not in methods or not seed.isdecimal():
        example = f"{next(iter(methods))}/0"
        raise ConfigError(f"--cell takes a method of --methods and a seed, such as {example}, not {text!r}.")
    return label, int(seed)


def _work(cell: Cell, device: str | None) -> int:
    return 0 if run_cell(cell, device) else 130


def _check(cells: Sequence[Cell], device: str | None, *, simulators: bool) -> DatasetInfo:
    """Refuse now what a cell would refuse later, in its environments only if asked; gives the dataset's description."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("Start trajplan compare without a launcher; its cells (--dry-run) can be given to one.")
    dataset = OfflineDataset.from_minari(cells[0].dataset_ids)
    evaluated = [check_method(cell.method, cell.settings, dataset, device) for cell in cells if cell.seed == 0]
    if simulators:
        check_environments(dataset.info, cells[0].evaluation, any(evaluated))
    return dataset.info


def _run_all(
    cells: Sequence[Cell], left: Sequence[Cell], info: DatasetInfo, args: argparse.Namespace
) -> tuple[dict[Cell, str], int]:
    """Work on the unfinished cells; gives those still unfinished with the reason, and the exit status."""
    bar = tqdm(
        total=len(cells),
        initial=len(cells) - len(left),
        unit="cell",
        dynamic_ncols=True,
        disable=not sys.stderr.isatty(),
        bar_format="{n_fmt}/{total_fmt} cells, {elapsed}{postfix}",
    )

    def show(lines: dict[Cell, str]) -> None:
        bar.set_postfix_str(", ".join(f"{cell.name} {line}" for cell, line in lines.items()))

    def end(outcome: Outcome) -> None:
        bar.update(outcome.status == "finished")
        detail = f": {outcome.reason}" if outcome.reason else ""
        detail += f" (log: {outcome.cell.log})" if outcome.status == "failed" else ""
        spent = f" after {tqdm.format_interval(int(outcome.seconds))}" if outcome.seconds else ""
        tqdm.write(f"{outcome.cell.name} {outcome.status}{spent}{detail}", file=sys.stderr)

    with bar:
        outcomes = _outcomes(left, info, args, {"on_end": end, "on_progress": show})
    missing = {outcome.cell: outcome.reason for outcome in outcomes if outcome.status != "finished"}
    if any(outcome.status == "stopped" for outcome in outcomes):
        print("trajplan: interrupted; the same command resumes.", file=sys.stderr)
        return missing, 130
    return missing, 1 if missing else 0


def _outcomes(
    left: Sequence[Cell], info: DatasetInfo, args: argparse.Namespace, callbacks: dict[str, Any]
) -> list[Outcome]:
    if not left:
        return []
    if args.ray is not None:
        resources = {"cpus_per_cell": args.cpus_per_cell, "gpus_per_cell": args.gpus_per_cell}
        return run_on_ray(left, args.device, address=args.ray, **resources, **callbacks)
    for cell in left:
        check_device(cell.method, args.device)
    gpus = _gpus() if args.jobs > 1 and args.device != "cpu" else []
    planned = plan(left, info, args.device, args.seeds_together)
    for line in planned.lines:
        tqdm.write(line, file=sys.stderr)
    return run_here(planned.pieces, args.jobs, args.device, gpus=gpus, **callbacks)


def _gpus() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    return [str(number) for number in range(torch.cuda.device_count())]


def _name_missing(missing: Mapping[Cell, str]) -> None:
    names: dict[str, list[str]] = {}
    for cell, reason in missing.items():
        names.setdefault(reason.rstrip("."), []).append(cell.name)
    if names:
        text = "; ".join(f"{', '.join(cells)} ({reason})" for reason, cells in names.items())
        print(f"Not in the report: {text}.", file=sys.stderr)


def _write(output: Path, cells: Sequence[Cell], info: DatasetInfo, missing: Mapping[Cell, str], command: str) -> None:
    results = load_results(cells)
    if not results:
        print("No cell is finished yet, so there is nothing to report.", file=sys.stderr)
        return
    write_csv(output / "comparison.csv", results)
    with writing(output / "report.html"), replacing(output / "report.html") as temporary:
        temporary.write_text(render(info, results, missing, command))
    print(text_table(by_method(results)))
    print(f"written  {output / 'comparison.csv'}\nwritten  {output / 'report.html'}")
