"""Many cells on one machine, several at a time, each in a process of its own."""

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import chain
from multiprocessing import active_children, get_context, parent_process
from queue import SimpleQueue
from typing import Any

from trajplan.comparison.cells import Cell
from trajplan.comparison.results import progress
from trajplan.comparison.together import Piece
from trajplan.comparison.worker import Outcome, failure, run_logged, run_together_logged
from trajplan.files import make_folder
from trajplan.runs.interrupt import Interrupt

POLL_SECONDS = 0.2
# What shows the cells in work reads their files.
SHOW_SECONDS = 2.0

Work = Callable[[Cell, str | None], bool]
WorkTogether = Callable[[Sequence[Cell], str | None], list[bool | str]]
OnEnd = Callable[[Outcome], None]
OnProgress = Callable[[dict[Cell, str]], None]


def run_here(
    pieces: Sequence[Piece],
    jobs: int,
    device: str | None,
    *,
    gpus: Sequence[str] = (),
    work: Work = run_logged,
    work_together: WorkTogether = run_together_logged,
    on_end: OnEnd = lambda outcome: None,
    on_progress: OnProgress = lambda lines: None,
) -> list[Outcome]:
    """Work on cells, `jobs` pieces at a time; after Ctrl-C or SIGTERM they save and stop, and this waits for them.

    Each piece has an executor of one process to itself rather than a place in a larger one, which would end all its
    processes when one of them is killed. So a cell's peak memory is its own, too.

    Args:
        pieces: what to work on, in this order: a cell each, or several that are trained together.
        jobs: pieces at a time.
        device: where, as `run_cell` takes it.
        gpus: of several GPUs each of the `jobs` places gets one, in turn.
        work, work_together: what a process does with its cell, or with several.
        on_end: called with each outcome.
        on_progress: called every `SHOW_SECONDS` or so with how far the cells in work are.

    Returns:
        One outcome a cell, in the order of their ends.
    """
    places: SimpleQueue[str | None] = SimpleQueue()
    for place in range(jobs):
        places.put(gpus[place % len(gpus)] if len(gpus) > 1 else None)
    begun: dict[Piece, float] = {}

    def run(piece: Piece) -> list[bool | str]:
        gpu, begun[piece] = places.get(), time.monotonic()
        try:
            with ProcessPoolExecutor(
                1, get_context("spawn"), initializer=_prepare, initargs=(threads_for(jobs), gpu)
            ) as process:
                return process.submit(_work, work, work_together, piece, device).result()
        finally:
            places.put(gpu)

    for cell in chain.from_iterable(pieces):
        make_folder(cell.folder)
    with Interrupt() as interrupt, ThreadPoolExecutor(jobs) as threads:
        futures = {threads.submit(run, piece): piece for piece in pieces}
        try:
            return _follow(futures, begun, interrupt, on_end, on_progress)
        except BaseException:
            for future in futures:
                future.cancel()
            _terminate(set())
            raise


def _follow(
    futures: "dict[Future[list[bool | str]], Piece]",
    begun: dict[Piece, float],
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
            in_work = [futures[one] for one in waiting if futures[one] in begun]
            on_progress({cell: progress(cell) for cell in chain.from_iterable(in_work)})
        for future, piece in ((one, piece) for one, piece in futures.items() if one in done):
            seconds = time.monotonic() - begun[piece] if piece in begun else 0.0
            for outcome in _outcomes(piece, future, stopping, seconds):
                outcomes.append(outcome)
                on_end(outcome)
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


def _work(work: Work, work_together: WorkTogether, piece: Piece, device: str | None) -> list[bool | str]:
    try:
        return [work(piece[0], device)] if len(piece) == 1 else work_together(piece, device)
    finally:
        if not _parent().is_alive():
            # Nobody hears the result, and an executor's process would wait for more work for ever.
            os._exit(1)


def _parent() -> Any:
    parent = parent_process()
    assert parent is not None
    return parent


def _outcomes(piece: Piece, future: "Future[list[bool | str]]", stopping: bool, seconds: float) -> Iterator[Outcome]:
    """What came of each cell of a piece; what ended its process is of them all."""
    if not future.cancelled() and future.exception() is None:
        for cell, done in zip(piece, future.result(), strict=True):
            if isinstance(done, str):
                yield Outcome(cell, "failed", done, seconds)
            elif done:
                yield Outcome(cell, "finished", seconds=seconds)
            else:
                yield Outcome(cell, "stopped", "interrupted, its state is saved", seconds)
        return
    for cell in piece:
        yield _cut_short(cell, future, stopping, seconds)


def _cut_short(cell: Cell, future: "Future[list[bool | str]]", stopping: bool, seconds: float) -> Outcome:
    if future.cancelled():
        return Outcome(cell, "stopped", "not begun")
    error = future.exception()
    assert error is not None
    if isinstance(error, BrokenProcessPool):
        if stopping:
            # It was told to stop while it still started, with nothing to save.
            return Outcome(cell, "stopped", "interrupted", seconds)
        return Outcome(cell, "failed", "its process was killed, as happens where memory runs out", seconds)
    if isinstance(error, KeyboardInterrupt):
        return Outcome(cell, "stopped", "interrupted", seconds)
    return Outcome(cell, "failed", failure(error), seconds)
