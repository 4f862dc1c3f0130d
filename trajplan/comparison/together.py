"""The seeds of a method that one process trains together: which cells these are, and the work on them.

Only the training is one computation: it leaves the folders and records that the cells would have had alone, and then
each of them is evaluated as any other.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from trajplan.comparison.cells import Cell, read_record, write_record
from trajplan.comparison.settings import PLANNED_BY, split_planner
from trajplan.comparison.work import alone, terminated_as_interrupted, write_cost
from trajplan.errors import TrajplanError

if TYPE_CHECKING:
    from trajplan.data.info import DatasetInfo

When = Literal["auto", "yes", "no"]
Piece = tuple[Cell, ...]


class Plan(NamedTuple):
    """How cells are worked on.

    Attributes:
        pieces: the cells of a process each, in order of their first ones.
        lines: what there is to say about seeds that are trained together, or could not be.
    """

    pieces: list[Piece]
    lines: list[str]


def plan(cells: Sequence[Cell], info: "DatasetInfo", device: str | None, when: When) -> Plan:
    """Put cells that are to be trained together into one piece, and every other one into a piece of its own.

    Args:
        cells: unfinished ones.
        info: of their dataset.
        device: as `run_cell` takes it.
        when: `auto`: on a GPU.
    """
    import torch

    by_label: dict[str, list[Cell]] = {}
    for cell in cells:
        by_label.setdefault(cell.label, []).append(cell)
    on_gpu = device != "cpu" and torch.cuda.is_available()
    groups: list[Piece] = []
    lines = []
    for label, same in by_label.items():
        wanted = when == "yes" or (when == "auto" and on_gpu)
        if not wanted or len(same) == 1 or same[0].method in PLANNED_BY:
            continue
        together, why = _trainable_together(same, info)
        if len(together) > 1:
            groups.append(together)
            lines.append(f"{label}: seeds {', '.join(str(cell.seed) for cell in together)} are trained together.")
        elif why:
            lines.append(f"{label}: seeds are trained one by one, as {why}.")
    piece_of = {cell: piece for piece in groups for cell in piece}
    return Plan(list(dict.fromkeys(piece_of.get(cell, (cell,)) for cell in cells)), lines)


def _trainable_together(cells: Sequence[Cell], info: "DatasetInfo") -> tuple[Piece, str | None]:
    """Those of a label's cells that are not trained yet and have the same settings, or why there are none."""
    from trajplan.baseline_training import settings_for
    from trajplan.baselines.engine.together import why_apart
    from trajplan.runs.folder import holds_run

    chosen: list[Cell] = []
    first = None
    for cell in cells:
        try:
            if read_record(cell)["cost"] is not None:
                continue
            training, *_ = split_planner(cell.settings)
            # A run that was begun by an earlier version keeps the settings that it had.
            settings = settings_for(
                cell.method, info, training | {"seed": 0}, cell.model if holds_run(cell.model) else None
            )
        except TrajplanError:
            # Left to the work on that cell, which says so in its log.
            continue
        if why := why_apart(*settings):
            return (), why
        first = first or settings
        if settings == first:
            chosen.append(cell)
    return tuple(chosen), None


def train_together(cells: Sequence[Cell], device: str | None) -> dict[Cell, TrajplanError | None]:
    """Train cells that differ in nothing but their seeds, or resume them, and record what it took.

    Ctrl-C and SIGTERM save, and end it.

    Returns:
        The cells that are not trained: with the reason, or None where a signal stopped them.
    """
    left: dict[Cell, TrajplanError | None] = {}
    with ExitStack() as stack:
        stack.enter_context(terminated_as_interrupted())
        records = {}
        for cell in cells:
            try:
                stack.enter_context(alone(cell.folder))
                records[cell] = read_record(cell)
            except TrajplanError as error:
                left[cell] = error
        if records:
            left |= _train(records, device)
    return left


def _train(records: Mapping[Cell, dict[str, Any]], device: str | None) -> dict[Cell, TrajplanError | None]:
    from trajplan.baseline_training import baseline_seeds
    from trajplan.comparison.checks import check_cell, check_device

    first = next(iter(records))
    left: dict[Cell, TrajplanError | None] = {}
    check_device(first.method, device)
    for cell, record in records.items():
        write_record(cell, record)
    # Checked again here, as a cell may run on another machine.
    check_cell(first, device)
    training, *_ = split_planner(first.settings)
    folders = {cell.seed: cell.model for cell in records}
    results = baseline_seeds(first.method, first.dataset_ids, folders, device=device, **training)
    for cell, record in records.items():
        result = results[cell.seed]
        if isinstance(result, TrajplanError):
            left[cell] = result
        elif result.interrupted:
            left[cell] = None
        else:
            write_cost(cell, record, len(records))
    return left
