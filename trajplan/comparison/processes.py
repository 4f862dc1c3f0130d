"""Many cells on one machine, several at a time, each in a process of its own."""

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context, parent_process
from queue import SimpleQueue
from typing import Any

from trajplan.comparison.cells import Cell
from trajplan.comparison.results import progress
from trajplan.comparison.worker import Outcome, failure, run_logged
from trajplan.files import make_folder
from trajplan.runs.interrupt import Interrupt

POLL_SECONDS = 0.2
# What shows the cells in work reads their files.
SHOW_SECONDS = 2.0

Work = Callable[[Cell, str | None], bool]
OnEnd = Callable[[Outcome], None]
OnProgress = Callable[[dict[Cell, str]], None]


def run_here(
    cells: Sequence[Cell],
    jobs: int,
    device: str | None,
    *,
    gpus: Sequence[str] = (),
    work: Work = run_logged,
    on_end: OnEnd = lambda outcome: None,
    on_progress: OnProgress = lambda lines: None,
) -> list[Outcome]:
    """Work on cells, `jobs` at a time; after Ctrl-C or SIGTERM they save and stop, and this waits for them.

    Each cell has an executor of one process to itself rather than a place in a larger one, which would end all its
    processes when one of them is killed. So a cell's peak memory is its own, too.

    Args:
        cells: what to work on, in this order.
        jobs: cells at a time.
        device: where, as `run_cell` takes it.
        gpus: of several GPUs each of the `jobs` places gets one, in turn.
        work: what a process does with its cell.
        on_end: called with each outcome.
        on_progress: called every `SHOW_SECONDS` or so with how far the cells in work are.

    Returns:
        One outcome a cell, in the order of their ends.
    """
    places: SimpleQueue[str | None] = SimpleQueue()
    for place in range(jobs):
        places.put(gpus[place % len(gpus)] if len(gpus) > 1 else None)
    begun: dict[Cell, float] = {}

    def run(cell: Cell) -> bool:
        gpu, begun[cell] = places.get(), time.monotonic()
        try:
            with ProcessPoolExecutor(
                1, get_context("spawn"), initializer=_prepare, initargs=(threads_for(jobs), gpu)
            ) as process:
                return process.submit(_work, work, cell, device).result()
        finally:
            places.put(gpu)

    for cell in cells:
        make_folder(cell.folder)
    with Interrupt() as interrupt, ThreadPoolExecutor(jobs) as threads:
        futures = {threads.submit(run, cell): cell for cell in cells}
        try:
            return _follow(futures, begun, interrupt, on_end, on_progress)
        except BaseException:
            for future in futures:
                future.cancel()
            _terminate(set())
            raise


def _follow(
    futures: "dict[Future[bool], Cell]",
    begun: dict[Cell, float],
    interrupt: Interrupt,
    on_end: OnEnd,
    on_progress: OnProgress,
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    told: set[int] = set()
    waiting, shown = set(futures), -math.inf
    while waiting:
        stopping = interrupt.wanted
        done, waiting = wait(waiting, POLL_SECONDS, FIRST_COMPLETED)
        if stopping:
            cancelled = {one for one in waiting if one.cancel()}
            done, waiting = done | cancelled, waiting - cancelled
            _terminate(told)
        elif time.monotonic() - shown >= SHOW_SECONDS:
            shown = time.monotonic()
            on_progress({futures[one]: progress(futures[one]) for one in waiting if futures[one] in begun})
        for future, cell in ((one, cell) for one, cell in futures.items() if one in done):
            seconds = time.monotonic() - begun[cell] if cell in begun else 0.0
            outcomes.append(_outcome(cell, future, stopping, seconds))
            on_end(outcomes[-1])
    return outcomes


def _terminate(told: set[int]) -> None:
    """Tell the processes, those that are only just started too, to stop: each once, as a second time cuts it short."""
    for child in active_children():
        if child.pid is not None and child.pid not in told:
            told.add(child.pid)
            child.terminate()


def threads_for(jobs: int) -> int:
    """Threads of each of `jobs` processes: together no more than there are cores.

    Threads of OpenMP wait for one another at every operation; on cores that are busy with something else this costs
    ten times and more of what they gain.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // jobs)


def _prepare(threads: int, gpu: str | None) -> None:
    """Begin a worker process, before it imports torch."""
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    # Ctrl-C at the terminal comes to the first process only, which passes it on once.
    os.setsid()
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    _parent().join()
    os.kill(os.getpid(), signal.SIGTERM)


def _work(work: Work, cell: Cell, device: str | None) -> bool:
    try:
        return work(cell, device)
    finally:
        if not _parent().is_alive():
            # Nobody hears the result, and an executor's process would wait for more work for ever.
            os._exit(1)


def _parent() -> Any:
    parent = parent_process()
    assert parent is not None
    return parent


def _outcome(cell: Cell, future: "Future[bool]", stopping: bool, seconds: float) -> Outcome:
    if future.cancelled():
        return Outcome(cell, "stopped", "not begun")
    error = future.exception()
    if isinstance(error, BrokenProcessPool):
        if stopping:
            # It was told to stop while it still started, with nothing to save.
            return Outcome(cell, "stopped", "interrupted", seconds)
        return Outcome(cell, "failed", "its process was killed, as happens where memory runs out", seconds)
    if isinstance(error, KeyboardInterrupt):
        return Outcome(cell, "stopped", "interrupted", seconds)
    if error is not None:
        return Outcome(cell, "failed", failure(error), seconds)
    if future.result():
        return Outcome(cell, "finished", seconds=seconds)
    return Outcome(cell, "stopped", "interrupted, its state is saved", seconds)
