import importlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from trajplan.comparison import processes
from trajplan.comparison.processes import run_here, threads_for

# A module that worker processes can import: what a cell does is its setting `do`.
WORK = '''
import os, signal, sys, time
from trajplan.errors import TrajplanError

def work(cell, device):
    cell.folder.mkdir(parents=True, exist_ok=True)
    (cell.folder / "process").write_text(str(os.getpid()))
    return globals()[cell.settings.get("do", "finish")](cell)

def finish(cell):
    return True

def rest(cell):
    time.sleep(0.5)
    return True

def fail(cell):
    raise TrajplanError("no such thing.")

def break_(cell):
    return 1 / 0

def die(cell):
    os.kill(os.getpid(), signal.SIGKILL)

def tell(cell):
    # Which reads how many threads it may have when it is imported.
    assert "torch" not in sys.modules
    (cell.folder / "told").write_text(f"{os.environ['OMP_NUM_THREADS']} {os.environ.get('CUDA_VISIBLE_DEVICES')}")
    time.sleep(0.5)
    return True

def together(cells, device):
    """All of one process: as many results as cells, or the end of all."""
    for cell in cells:
        (cell.folder / "process").write_text(str(os.getpid()))
    if cells[0].label == "die":
        die(cells[0])
    return [True, "no such thing.", False][: len(cells)]

def wait(cell):
    """Sets a mark when it is up, and saves when it is told to stop."""
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    (cell.folder / "up").touch()
    end = time.monotonic() + 60
    while not stopped and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.2)
    (cell.folder / "saved").touch()
    return False
'''


@pytest.fixture
def work(tmp_path, monkeypatch):
    (tmp_path / "cell_work.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(processes, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(processes, "SHOW_SECONDS", 0.0)
    yield importlib.import_module("cell_work").work
    del sys.modules["cell_work"]


def statuses(outcomes):
    return {outcome.cell.name: outcome.status for outcome in outcomes}


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def single(cells):
    """Pieces of a cell each."""
    return [(one,) for one in cells]


def test_a_cell_that_fails_or_is_killed_does_not_stop_the_others(cell, work):
    cells = [cell("bc", seed, settings={"do": do}) for seed, do in enumerate(("fail", "die", "break_", "finish"))]
    ended = []
    outcomes = run_here(single(cells), 2, None, work=work, on_end=ended.append)
    assert statuses(outcomes) == {"bc/0": "failed", "bc/1": "failed", "bc/2": "failed", "bc/3": "finished"}
    assert ended == outcomes
    reasons = {outcome.cell.seed: outcome.reason for outcome in outcomes}
    assert reasons == {
        0: "no such thing.",
        1: "its process was killed, as happens where memory runs out",
        2: "ZeroDivisionError: division by zero",
        3: "",
    }


def test_each_cell_has_a_process_of_its_own_and_as_many_run_as_jobs(cell, work):
    cells = [cell("bc", seed, settings={"do": "rest"}) for seed in range(3)]
    most = []
    run_here(single(cells), 2, None, work=work, on_progress=lambda lines: most.append(len(lines)))
    assert max(most) == 2
    assert len({(made.folder / "process").read_text() for made in cells}) == 3


def test_a_piece_of_several_cells_has_one_process_and_an_outcome_a_cell(cell, work):
    together = importlib.import_module(work.__module__).together
    cells, dead = [cell("bc", seed) for seed in range(3)], [cell("die", seed) for seed in range(2)]
    shown = []
    outcomes = run_here(
        [tuple(cells), (cell("iql"),), tuple(dead)], 2, None, work=work, work_together=together,
        on_progress=lambda lines: shown.extend(lines),
    )  # fmt: skip
    found = {(outcome.cell.name, outcome.status, outcome.reason) for outcome in outcomes}
    killed = "its process was killed, as happens where memory runs out"
    assert found == {
        ("bc/0", "finished", ""),
        ("bc/1", "failed", "no such thing."),
        ("bc/2", "stopped", "interrupted, its state is saved"),
        ("iql/0", "finished", ""),
        ("die/0", "failed", killed),
        ("die/1", "failed", killed),
    }
    assert len({(made.folder / "process").read_text() for made in cells}) == 1
    assert {"bc/0", "bc/1", "bc/2"} <= {made.name for made in shown}


def test_threads_and_gpus_are_shared_out(cell, work, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cells = [cell("bc", seed, settings={"do": "tell"}) for seed in range(2)]
    run_here(single(cells), 2, None, gpus=["3", "5"], work=work)
    assert {(made.folder / "told").read_text() for made in cells} == {f"{threads_for(2)} 3", f"{threads_for(2)} 5"}
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    run_here(single(cells[:1]), 2, None, work=work)
    assert (cells[0].folder / "told").read_text().split()[0] == "7"
    assert threads_for(10_000) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_an_interruption_cells_save_and_nothing_is_left_running(cell, work, number):
    cells = [cell("bc", seed, settings={"do": "wait"}) for seed in range(3)]

    def interrupt():
        until(lambda: all((made.folder / "up").exists() for made in cells[:2]))
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    outcomes = run_here(single(cells), 2, None, work=work)
    thread.join()
    assert statuses(outcomes) == {"bc/0": "stopped", "bc/1": "stopped", "bc/2": "stopped"}
    assert [(made.folder / "saved").exists() for made in cells] == [True, True, False]
    assert {outcome.cell.seed: outcome.reason for outcome in outcomes}[2] == "not begun"
    assert not any(is_running(made) for made in cells[:2])


def is_running(cell):
    try:
        os.kill(int((cell.folder / "process").read_text()), 0)
    except ProcessLookupError:
        return False
    return True


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from cell_work import work
from trajplan.comparison.cells import Cell
from trajplan.comparison.processes import run_here
from trajplan.comparison.settings import EvaluationConfig
if __name__ == "__main__":
    run_here([(Cell("bc", "bc", 0, "x", Path(sys.argv[2]), {"do": "wait"}, EvaluationConfig()),)], 1, None, work=work)
"""


def test_a_cell_saves_and_stops_when_the_first_process_is_killed(cell, work, tmp_path):
    made, script = cell(), tmp_path / "killed.py"
    script.write_text(KILLED)
    with subprocess.Popen([sys.executable, script, tmp_path, made.output]) as process:
        until((made.folder / "up").exists)
        process.kill()
    until((made.folder / "saved").exists)
    until(lambda: not is_running(made))


def test_what_a_cell_prints_is_in_its_log_after_that_of_earlier_sessions(cell, monkeypatch, tmp_path):
    """With the real work, on a dataset that there is not."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "none"))
    made = cell()
    made.folder.mkdir(parents=True)
    made.log.write_text("before\n")
    (outcome,) = run_here([(made,)], 1, "cpu")
    assert (outcome.status, outcome.cell) == ("failed", made)
    first, *_, last = made.log.read_text().splitlines()
    assert (first, last) == ("before", f"trajplan: error: {outcome.reason}")
    assert made.dataset in outcome.reason
