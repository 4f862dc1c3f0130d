import json
import os
import signal
import sys
import threading
import time

import pytest

from trajplan.comparison import runner
from trajplan.comparison.claim import PARENT, Claim
from trajplan.comparison.runner import BUSY, Pool, last_line, threads_for


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(runner, "SHOW_SECONDS", 0.0)


def statuses(outcomes):
    return {outcome.cell.name: outcome.status for outcome in outcomes}


def shell_words(text):
    return lambda cell: ["sh", "-c", text, "sh", str(cell.seed), str(cell.folder)]


def test_a_failed_cell_does_not_stop_the_others_and_is_told_with_its_last_line(cell):
    cells = [cell("bc", seed) for seed in range(3)]
    text = 'echo begun; if [ "$1" = 1 ]; then echo "trajplan: error: no such thing." >&2; exit 2; fi'
    ended = []
    outcomes = Pool(cells, 2, shell_words(text), on_end=ended.append).run()
    assert statuses(outcomes) == {"bc/0": "finished", "bc/1": "failed", "bc/2": "finished"}
    assert ended == outcomes
    (failed,) = [outcome for outcome in outcomes if outcome.status == "failed"]
    assert failed.reason == "no such thing."
    assert failed.cell.log.read_text() == "begun\ntrajplan: error: no such thing.\n"


def test_the_log_of_an_earlier_session_is_kept(cell):
    made = cell()
    for _ in range(2):
        Pool([made], 1, shell_words("echo again")).run()
    assert made.log.read_text() == "again\nagain\n"
    assert last_line(made) == "again"


def test_a_killed_cell_is_told_by_its_signal(cell):
    (outcome,) = Pool([cell()], 1, shell_words("kill -9 $$")).run()
    assert (outcome.status, outcome.reason) == ("failed", "ended by signal 9")


@pytest.mark.parametrize("jobs", [1, 3])
def test_as_many_at_a_time_as_jobs(cell, jobs):
    most = []
    Pool(
        [cell("bc", seed) for seed in range(4)],
        jobs,
        shell_words("sleep 0.15"),
        on_poll=lambda running: most.append(len(running)),
    ).run()
    assert max(most) == jobs


def test_cells_are_shown_now_and_then_only(cell, monkeypatch):
    monkeypatch.setattr(runner, "SHOW_SECONDS", 60.0)
    made, shown = cell(), []
    Pool([made], 1, shell_words("sleep 0.3"), on_poll=shown.append).run()
    assert shown == [[made]]


def test_threads_and_gpus_are_shared_out(cell, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    code = 'echo "$OMP_NUM_THREADS $CUDA_VISIBLE_DEVICES"; sleep 0.3'
    cells = [cell("bc", seed) for seed in range(2)]
    Pool(cells, 2, shell_words(code), gpus=["3", "5"]).run()
    assert [last_line(made) for made in cells] == [f"{threads_for(2)} 3", f"{threads_for(2)} 5"]
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    Pool(cells[:1], 2, shell_words(code)).run()
    assert last_line(cells[0]).split()[0] == "7"
    assert threads_for(10_000) == 1


def test_a_cell_of_another_process_is_left_to_it_and_looked_at_again(cell):
    mine, theirs, far = cell("bc", 0), cell("bc", 1), cell("bc", 2)
    far.claim.parent.mkdir(parents=True)
    far.claim.write_text(json.dumps({"host": "far", "machine": "far away", "process": 1}))
    claim = Claim(theirs.claim)
    claim.__enter__()
    outcomes = Pool(
        [mine, theirs, far], 1, shell_words("exit 0"), on_end=lambda outcome: theirs.claim.exists() and claim.__exit__()
    ).run()
    assert [(outcome.cell.name, outcome.status) for outcome in outcomes] == [
        ("bc/0", "finished"), ("bc/1", "finished"), ("bc/2", "busy"),
    ]  # fmt: skip
    assert "process 1 on far" in outcomes[-1].reason


def test_a_process_that_finds_its_cell_taken_is_not_a_failure(cell):
    far = {"host": "far", "machine": "far away", "process": 1}
    text = f"echo '{json.dumps(far)}' > $2/claim.json; echo taken by another; exit {BUSY}"
    (outcome,) = Pool([cell()], 1, shell_words(text)).run()
    assert (outcome.status, outcome.reason) == ("busy", "taken by another")


# Sets a mark when it is up, and saves when it is told to stop.
PATIENT = """
import signal, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
def stop(*_):
    time.sleep(0.2)
    (folder / "saved").touch()
    sys.exit(130)
signal.signal(signal.SIGTERM, stop)
(folder / "up").touch()
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_an_interruption_cells_save_and_nothing_new_begins(cell, number):
    cells = [cell("bc", seed) for seed in range(3)]

    def interrupt():
        end = time.monotonic() + 30
        while not all((made.folder / "up").exists() for made in cells[:2]) and time.monotonic() < end:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt, daemon=True).start()
    outcomes = Pool(cells, 2, lambda cell: [sys.executable, "-c", PATIENT, str(cell.folder)]).run()
    assert statuses(outcomes) == {"bc/0": "stopped", "bc/1": "stopped", "bc/2": "stopped"}
    assert [(made.folder / "saved").exists() for made in cells] == [True, True, False]
    assert [outcome.reason for outcome in outcomes][-1] == "not begun"


def test_a_cell_that_is_stopped_while_it_starts_has_not_failed(cell):
    made = cell()

    def interrupt(running):
        if (made.folder / "up").exists():
            os.kill(os.getpid(), signal.SIGINT)

    (outcome,) = Pool([made], 1, shell_words('touch "$2/up"; exec sleep 60'), on_poll=interrupt).run()
    assert (outcome.status, outcome.reason) == ("stopped", "interrupted")


def test_a_cell_that_another_process_terminates_has_failed(cell):
    (outcome,) = Pool([cell()], 1, shell_words("kill -15 $$")).run()
    assert (outcome.status, outcome.reason) == ("failed", "ended by signal 15")


def test_the_process_knows_who_started_it(cell):
    made = cell()
    Pool([made], 1, shell_words(f"echo ${PARENT}")).run()
    assert last_line(made) == str(os.getpid())
