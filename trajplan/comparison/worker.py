"""A cell in a process of its own, on this machine or another: what it prints is in its log, and what came of it."""

import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trajplan.comparison.cells import Cell
from trajplan.comparison.together import train_together
from trajplan.comparison.work import run_cell
from trajplan.errors import TrajplanError


@dataclass(frozen=True)
class Outcome:
    """How the work on a cell ended.

    Attributes:
        cell: the cell.
        status: `stopped` if it was interrupted or not begun.
        reason: why it is not finished.
        seconds: how long it was worked on.
    """

    cell: Cell
    status: Literal["finished", "failed", "stopped"]
    reason: str = ""
    seconds: float = 0.0


def run_logged(cell: Cell, device: str | None) -> bool:
    """`run_cell` in a process that does nothing else: all that it prints, also from outside Python, is in its log."""
    with _printing_to(cell.log), _telling(cell):
        return run_cell(cell, device)
    return False


def run_together_logged(cells: Sequence[Cell], device: str | None) -> list[bool | str]:
    """Train cells together, with what is printed in the first one's log, then work on each as `run_logged` does.

    Returns:
        Whether each cell is done; False: it was interrupted; a text: why it failed.
    """
    first, names = cells[0], ", ".join(cell.name for cell in cells)
    for cell in cells[1:]:
        with cell.log.open("a") as log:
            log.write(f"{names} are trained together; what the training prints is in {first.log}.\n")
    left: dict[Cell, TrajplanError | None] = dict.fromkeys(cells)
    with _printing_to(first.log), _telling(first):
        left = train_together(cells, device)
    done: list[bool | str] = []
    for cell in cells:
        error = left.get(cell)
        if error is not None:
            with cell.log.open("a") as log:
                log.write(f"trajplan: error: {error}\n")
            done.append(failure(error))
        elif cell in left or False in done:
            done.append(False)
        else:
            done.append(_done_or_why(cell, device))
    return done


def _done_or_why(cell: Cell, device: str | None) -> bool | str:
    try:
        return run_logged(cell, device)
    except Exception as error:  # in its log, and one of several cells: the others are worked on
        return failure(error)


@contextmanager
def _telling(cell: Cell) -> Iterator[None]:
    """Print what ends the work on a cell; an interruption ends it quietly."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"trajplan: interrupted; {cell.name} resumes from its newest checkpoint.", file=sys.stderr)
    except TrajplanError as error:
        print(f"trajplan: error: {error}", file=sys.stderr)
        raise
    except Exception:
        traceback.print_exc()
        raise


@contextmanager
def _printing_to(log: Path) -> Iterator[None]:
    with log.open("a", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
        yield


def failure(error: BaseException) -> str:
    """What an exception says in a table."""
    text = " ".join(str(error).split())
    return text if isinstance(error, TrajplanError) else f"{type(error).__name__}: {text}".rstrip(": ")
