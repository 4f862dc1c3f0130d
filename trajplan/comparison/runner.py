"""Work on cells in processes of their own, several at a time; one that fails does not stop the others."""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from trajplan.comparison.cells import Cell
from trajplan.comparison.claim import PARENT, holder
from trajplan.files import make_folder
from trajplan.runs.interrupt import Interrupt

# The exit status of a cell's command when another process works on the cell (EX_TEMPFAIL of sysexits.h).
BUSY = 75
POLL_SECONDS = 0.2
# What shows the cells in work reads their files.
SHOW_SECONDS = 2.0


@dataclass(frozen=True)
class Outcome:
    """How the work on a cell ended.

    Attributes:
        cell: the cell.
        status: `busy` if another process works on it, `stopped` if it was interrupted or not begun.
        reason: why it is not finished.
        seconds: how long it was worked on.
    """

    cell: Cell
    status: Literal["finished", "failed", "busy", "stopped"]
    reason: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Running:
    """A cell that a process works on, since when, and in which of the `jobs` places."""

    cell: Cell
    process: subprocess.Popen
    started: float
    place: int


class Pool:
    """Processes that work on cells, `jobs` at a time.

    Args:
        cells: what to work on, in this order; those that other processes have are left to them.
        jobs: processes at a time.
        words: the command of a cell, which ends with 0, 130 (interrupted), `BUSY` or another status (failed).
        on_end: called with each outcome.
        on_poll: called every `SHOW_SECONDS` or so with the cells in work.
        gpus: of several GPUs each place gets one, in turn.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        jobs: int,
        words: Callable[[Cell], list[str]],
        *,
        on_end: Callable[[Outcome], None] = lambda outcome: None,
        on_poll: Callable[[list[Cell]], None] = lambda running: None,
        gpus: Sequence[str] = (),
    ) -> None:
        self.jobs, self.words, self.gpus, self.on_end, self.on_poll = jobs, words, gpus, on_end, on_poll
        self.waiting = list(cells)
        self.running: list[Running] = []
        self.busy: list[Outcome] = []
        self.outcomes: list[Outcome] = []
        self.stopping = False
        self.shown = -math.inf

    def run(self) -> list[Outcome]:
        """Work until nothing is left; after Ctrl-C or SIGTERM tell the processes to save and stop, and wait for them.

        Returns:
            One outcome a cell, in the order of their ends.
        """
        try:
            with Interrupt() as interrupt:
                self._start()
                while self.running and not interrupt.wanted:
                    self._wait()
                    self._start()
                self._stop()
                while self.running:
                    self._wait()
        finally:
            self._stop()
        for outcome in [*self.busy, *(Outcome(cell, "stopped", "not begun") for cell in self.waiting)]:
            self._end(outcome)
        return self.outcomes

    def _start(self) -> None:
        if not self.running and not self.waiting:
            # What another process had may be free by now.
            self.waiting = [outcome.cell for outcome in self.busy if holder(outcome.cell.claim) is None]
            self.busy = [outcome for outcome in self.busy if outcome.cell not in self.waiting]
        while self.waiting and len(self.running) < self.jobs:
            cell = self.waiting.pop(0)
            if reason := holder(cell.claim):
                self.busy.append(Outcome(cell, "busy", reason))
            else:
                self.running.append(self._process(cell))

    def _process(self, cell: Cell) -> Running:
        place = min(set(range(self.jobs)) - {item.place for item in self.running})
        environment = {"OMP_NUM_THREADS": str(threads_for(self.jobs))} | os.environ | {PARENT: str(os.getpid())}
        if len(self.gpus) > 1:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[place % len(self.gpus)]
        make_folder(cell.folder)
        with cell.log.open("ab") as log:
            # A session of its own: Ctrl-C at the terminal comes to this process only, which passes it on once.
            process = subprocess.Popen(
                self.words(cell),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        return Running(cell, process, time.monotonic(), place)

    def _wait(self) -> None:
        time.sleep(POLL_SECONDS)
        if time.monotonic() - self.shown >= SHOW_SECONDS:
            self.shown = time.monotonic()
            self.on_poll([item.cell for item in self.running])
        for item in [item for item in self.running if item.process.poll() is not None]:
            self.running.remove(item)
            outcome = _outcome(item, self.stopping)
            if outcome.status == "busy":
                self.busy.append(outcome)
            else:
                self._end(outcome)

    def _end(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.on_end(outcome)

    def _stop(self) -> None:
        self.stopping = True
        for item in self.running:
            if item.process.poll() is None:
                item.process.terminate()


def threads_for(jobs: int) -> int:
    """Threads of each of `jobs` processes: together no more than there are cores.

    Threads of OpenMP wait for one another at every operation; on cores that are busy with something else this costs
    ten times and more of what they gain.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // jobs)


def _outcome(item: Running, stopping: bool) -> Outcome:
    seconds, status = time.monotonic() - item.started, item.process.returncode
    if status == 0:
        return Outcome(item.cell, "finished", seconds=seconds)
    if status == 130:
        return Outcome(item.cell, "stopped", "interrupted, its state is saved", seconds)
    if stopping and status == -signal.SIGTERM:
        # It was told to stop while it still started, with nothing to save.
        return Outcome(item.cell, "stopped", "interrupted", seconds)
    if status == BUSY:
        return Outcome(item.cell, "busy", last_line(item.cell), seconds)
    died = f"ended by signal {-status}" if status < 0 else ""
    return Outcome(item.cell, "failed", died or last_line(item.cell) or f"exit status {status}", seconds)


def last_line(cell: Cell) -> str:
    """The last line of a cell's log, without the command's own prefix."""
    lines = cell.log.read_text(errors="replace").strip().splitlines() if cell.log.exists() else []
    return lines[-1].removeprefix("trajplan: error: ") if lines else ""


def python_words(words: list[str]) -> list[str]:
    """A `trajplan` command for this very Python."""
    return [sys.executable, "-m", *words]
