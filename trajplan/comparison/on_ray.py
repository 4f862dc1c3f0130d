"""Many cells on a Ray cluster, a task a cell."""

import math
import os
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from trajplan.comparison.cells import Cell
from trajplan.comparison.processes import POLL_SECONDS, SHOW_SECONDS, OnEnd, OnProgress, Work
from trajplan.comparison.results import progress
from trajplan.comparison.worker import Outcome, failure, run_logged
from trajplan.errors import ConfigError
from trajplan.files import make_folder
from trajplan.runs.interrupt import Interrupt

# This machine alone, without a cluster.
LOCAL = "local"
# How often a cell is started again whose worker, or node, was lost.
RETRIES = 3
CONNECT_SECONDS = 10.0


def run_on_ray(
    cells: Sequence[Cell],
    device: str | None,
    *,
    address: str = LOCAL,
    cpus_per_cell: float = 1,
    gpus_per_cell: float | None = None,
    work: Work = run_logged,
    on_end: OnEnd = lambda outcome: None,
    on_progress: OnProgress = lambda lines: None,
) -> list[Outcome]:
    """Work on cells wherever the cluster has room; after Ctrl-C or SIGTERM they save and stop, and this waits for them.

    A cell whose worker dies is started again, on whatever node, and resumes. All nodes need the output folder under
    the same path, the dataset, and the simulator.

    Args:
        cells: what to work on, in this order.
        device: where, as `run_cell` takes it.
        address: of the cluster, such as `10.0.0.1:6379` or `auto`; `local`: this machine alone.
        cpus_per_cell: CPUs, and so threads, of a cell.
        gpus_per_cell: GPUs of a cell, a fraction where several share one; None: 1 where the cluster has any.
        work: what a worker does with its cell.
        on_end: called with each outcome.
        on_progress: called every `SHOW_SECONDS` or so with what the workers say of the cells in work.

    Returns:
        One outcome a cell, in the order of their ends.
    """
    for cell in cells:
        make_folder(cell.folder)
    ray = _connected(address)
    try:
        resources = _resources(ray, device, cpus_per_cell, gpus_per_cell)
        board = ray.remote(num_cpus=0, scheduling_strategy=_this_node(ray))(Board).remote()
        # A worker for each cell: its peak memory is its own, and what it prints can go to the cell's log.
        task = ray.remote(max_calls=1, max_retries=RETRIES, **resources)(_run)
        with Interrupt() as interrupt:
            # Where a worker runs, another folder may be the current one.
            absolute = {cell: replace(cell, output=cell.output.absolute()) for cell in cells}
            refs = {task.remote(work, absolute[cell], device, board): cell for cell in cells}
            return _follow(ray, refs, board, interrupt, on_end, on_progress)
    finally:
        ray.shutdown()


class Board:
    """An actor that the workers tell how far they are, and the driver reads."""

    def __init__(self) -> None:
        self.lines: dict[str, tuple[float, str]] = {}

    def tell(self, name: str, line: str) -> None:
        """Keep the newest line about a cell, and when the first came."""
        since, _ = self.lines.get(name, (time.time(), ""))
        self.lines[name] = (since, line)

    def read(self) -> dict[str, tuple[float, str]]:
        """Since when a cell is in work, and the newest line about it, by name."""
        return self.lines


def _run(work: Work, cell: Cell, device: str | None, board: Any) -> bool:
    """The task: in a worker process of its own, on whatever node."""
    if not cell.folder.is_dir():
        raise ConfigError(
            f"{cell.folder} is not there on {socket.gethostname()}: the output folder has to be shared by all nodes, "
            "under the same path."
        )
    ended = threading.Event()
    where = f"on {socket.gethostname()}, process {os.getpid()}"

    def tell() -> None:
        while True:
            board.tell.remote(cell.name, f"{progress(cell)} {where}")
            if ended.wait(SHOW_SECONDS):
                return

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        return work(cell, device)
    finally:
        ended.set()
        teller.join()


def _connected(address: str) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        # Not `ray` alone, which a folder of that name would be.
        import ray.exceptions
    except ImportError:
        raise ConfigError("--ray needs Ray: pip install 'trajplan[ray]'.") from None
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "WARNING"}
    try:
        if address == LOCAL:
            options["include_dashboard"] = False
        elif address != "auto":
            # Ray waits for minutes, or for ever, for a machine that does not answer.
            host, _, port = address.removeprefix("ray://").rpartition(":")
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        ray.init(address=address, **options)
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ConfigError(
            f"No Ray cluster can be reached at {address} ({reason}); start one with ray start --head, and give the "
            "address that it prints, or --ray alone for this machine."
        ) from None
    return ray


def _this_node(ray: Any) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)


def _resources(ray: Any, device: str | None, cpus: float, gpus: float | None) -> dict[str, float]:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most = max((node.get("GPU", 0.0) for node in nodes), default=0.0)
    if gpus is None:
        gpus = 1.0 if device == "cuda" or (device is None and most) else 0.0
    if not any(node.get("CPU", 0.0) >= cpus and node.get("GPU", 0.0) >= gpus for node in nodes):
        raise ConfigError(
            f"No node of the Ray cluster has {cpus:g} CPUs and {gpus:g} GPUs for a cell; give --cpus-per-cell, "
            "--gpus-per-cell or --device cpu."
        )
    return {"num_cpus": cpus, "num_gpus": gpus}


def _follow(
    ray: Any, refs: dict[Any, Cell], board: Any, interrupt: Interrupt, on_end: OnEnd, on_progress: OnProgress
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    waiting, shown, stopping = list(refs), -math.inf, False
    lines: dict[str, tuple[float, str]] = {}
    while waiting:
        if interrupt.wanted and not stopping:
            stopping = True
            for ref in waiting:
                ray.cancel(ref, force=False)
        done, waiting = ray.wait(waiting, timeout=POLL_SECONDS)
        if done or time.monotonic() - shown >= SHOW_SECONDS:
            shown = time.monotonic()
            lines = ray.get(board.read.remote())
            on_progress({refs[ref]: lines[refs[ref].name][1] for ref in waiting if refs[ref].name in lines})
        for ref in done:
            since, _ = lines.get(refs[ref].name, (None, ""))
            outcomes.append(_outcome(ray, ref, refs[ref], 0.0 if since is None else time.time() - since))
            on_end(outcomes[-1])
    return outcomes


def _outcome(ray: Any, ref: Any, cell: Cell, seconds: float) -> Outcome:
    try:
        finished = ray.get(ref)
    except ray.exceptions.TaskCancelledError:
        return Outcome(cell, "stopped", "interrupted" if seconds else "not begun", seconds)
    except ray.exceptions.RayTaskError as error:
        return Outcome(cell, "failed", failure(error.cause), seconds)
    except ray.exceptions.RayError as error:
        return Outcome(cell, "failed", f"its worker was lost {RETRIES + 1} times ({type(error).__name__})", seconds)
    if finished:
        return Outcome(cell, "finished", seconds=seconds)
    return Outcome(cell, "stopped", "interrupted, its state is saved", seconds)
