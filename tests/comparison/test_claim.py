import json
import os
import signal
import time

import pytest

from trajplan.comparison import claim
from trajplan.comparison.claim import PARENT, Claim, ClaimedError, holder

TAKE = """
import sys, time
from pathlib import Path
from trajplan.comparison.claim import Claim
with Claim(Path(sys.argv[1])):
    print("taken", flush=True)
    time.sleep(60)
"""
# Works many times in a place that holds one at a time: whoever finds another there tells.
CONTEND = """
import sys, time
from pathlib import Path
from trajplan.comparison.claim import Claim, ClaimedError
claim, place, done = Path(sys.argv[1]), Path(sys.argv[2]), 0
end = time.monotonic() + 60
while done < 30 and time.monotonic() < end:
    try:
        with Claim(claim):
            place.open("x").close()
            time.sleep(0.001)
            place.unlink()
            done += 1
    except ClaimedError:
        time.sleep(0.0005)
    except FileExistsError:
        sys.exit("two at once")
print(done)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cell" / "claim.json"


def test_one_at_a_time_and_free_again(path):
    assert holder(path) is None
    with Claim(path):
        with pytest.raises(ClaimedError, match=rf"worked on by process {os.getpid()} on .* delete {path}\.$"):
            Claim(path).__enter__()
        assert holder(path) is not None
    assert holder(path) is None
    assert list(path.parent.iterdir()) == []
    with Claim(path):
        pass


@pytest.mark.parametrize("text", ["[1]", "3", '{"host": "here"}', "{"])
def test_a_damaged_claim_is_one_of_nobody(path, text):
    path.parent.mkdir()
    path.write_text(text)
    assert holder(path) is None
    with Claim(path):
        assert json.loads(path.read_text())["process"] == os.getpid()
    assert not path.exists()


def test_a_claim_is_given_up_when_the_work_fails(path):
    with pytest.raises(ZeroDivisionError), Claim(path):
        _ = 1 / 0
    assert not path.exists()


def test_what_a_killed_process_of_this_machine_left_is_taken_over(path, python):
    process = python(TAKE, path)
    assert process.stdout.readline() == "taken\n"
    assert holder(path) is not None
    with pytest.raises(ClaimedError):
        Claim(path).__enter__()
    process.kill()
    process.communicate()
    assert path.exists()
    assert holder(path) is None
    with Claim(path):
        assert json.loads(path.read_text())["process"] == os.getpid()


def test_what_a_process_on_another_machine_left_is_for_a_person_to_judge(path):
    path.parent.mkdir()
    path.write_text(json.dumps({"host": "far", "machine": "far away", "process": 12}))
    os.utime(path, (time.time() - 1200,) * 2)
    with pytest.raises(ClaimedError, match="process 12 on far, whose last sign of life is 20 minutes old; if"):
        Claim(path).__enter__()
    assert "process 12 on far" in str(holder(path))
    path.unlink()
    with Claim(path):
        pass


def test_an_owner_shows_that_it_lives(path, monkeypatch):
    monkeypatch.setattr(claim, "TOUCH_SECONDS", 0.5)
    with Claim(path):
        os.utime(path, (0, 0))
        end = time.monotonic() + 20
        while path.stat().st_mtime == 0 and time.monotonic() < end:
            time.sleep(0.05)
        assert path.stat().st_mtime > 0


OTHERS = json.dumps({"host": "far", "machine": "far away", "process": 12})


def test_another_owners_claim_is_left_alone(path):
    with Claim(path):
        path.unlink()
        path.write_text(OTHERS)
    assert path.read_text() == OTHERS


@pytest.mark.parametrize("text", [OTHERS, None])
@pytest.mark.parametrize("raises", [True, False])
def test_work_stops_when_its_claim_is_lost(path, monkeypatch, text, raises):
    monkeypatch.setattr(claim, "TOUCH_SECONDS", 0.5)
    told = []

    def stop(*_):
        told.append(True)
        if raises:
            raise KeyboardInterrupt

    def work():
        path.unlink()
        if text is not None:
            path.write_text(text)
            os.utime(path, (0, 0))
        end = time.monotonic() + 20
        while not told and time.monotonic() < end:
            time.sleep(0.05)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(ClaimedError, match=r"^The work on .*cell was stopped, as its claim\.json"), Claim(path):
            work()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert told == [True]
    assert (path.read_text() if path.exists() else None) == text
    assert text is None or path.stat().st_mtime == 0


def test_a_claim_without_text_is_free_once_its_owner_is_dead(path):
    path.parent.mkdir()
    path.touch()
    assert holder(path) is None
    with Claim(path):
        pass


def test_a_file_system_without_locks_still_keeps_a_second_process_out(path, monkeypatch):
    def refuse(*arguments):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(claim.fcntl, "flock", refuse)
    with Claim(path):
        assert "is being worked on" in str(holder(path))
        with pytest.raises(ClaimedError):
            Claim(path).__enter__()
    assert not path.exists()


def test_many_processes_never_work_at_once(path, python):
    processes = [python(CONTEND, path, path.parent.parent / "place") for _ in range(3)]
    assert [process.communicate()[0] for process in processes] == ["30\n"] * 3
    assert {process.returncode for process in processes} == {0}


def test_work_stops_when_the_process_that_started_it_is_gone(path, monkeypatch):
    monkeypatch.setenv(PARENT, str(os.getppid() + 1))
    told = []
    before = signal.signal(signal.SIGTERM, lambda *_: told.append(True))
    try:
        with Claim(path):
            end = time.monotonic() + 20
            while not told and time.monotonic() < end:
                time.sleep(0.05)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert told == [True]
