"""A cell in a process of its own, on this machine or another: what it prints is in its log, and what came of it."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trajplan.comparison.cells import Cell
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
    with _printing_to(cell.log):
        try:
            return run_cell(cell, device)
        except KeyboardInterrupt:
            print(f"trajplan: interrupted; {cell.name} resumes from its newest checkpoint.", file=sys.stderr)
            return False
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
