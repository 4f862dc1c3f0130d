"""A claim on a cell, so that of all machines that share a folder one works on it at a time.

The claim is a file that only one process can make, locked for as long as that process lives. On the same machine the
lock tells whether the owner is alive, so what a killed process left is taken over at once. Of an owner on another
machine only the file's time tells something: it is touched every minute, and a person decides.
"""

import contextlib
import fcntl
import json
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import IO, Self

from trajplan.errors import TrajplanError
from trajplan.files import make_folder

TOUCH_SECONDS = 60.0
# Names the process that started this one to work on a cell: when it is gone, this one saves and stops.
PARENT = "TRAJPLAN_COMPARE_PARENT"


class ClaimedError(TrajplanError):
    """A cell that another process works on, or worked on when its machine was lost."""


class Claim:
    """While entered, this process alone works on the cell of that claim file.

    When the file is found to be gone or another's, as after a person took this process for dead, the work is told to
    stop as by SIGTERM.

    Raises:
        ClaimedError: on entering, if another process does; on leaving, if the work was stopped because of that.
        CheckpointError: on entering, if the folder cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None
        self._ended = threading.Event()
        self._lost = False
        # Between the end of the work and the last look at the file.
        self._looking = threading.Lock()

    def __enter__(self) -> Self:
        make_folder(self.path.parent)
        self._file = _take(self.path)
        threading.Thread(target=self._watch, args=(os.environ.get(PARENT),), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *exception: object) -> None:
        assert self._file is not None
        with self._looking:
            self._ended.set()
            # Removed before the lock is given up: whoever gets the lock later sees that its file is no longer there.
            if _is_at(self._file, self.path):
                self.path.unlink(missing_ok=True)
            self._file.close()
        if self._lost and kind in (None, KeyboardInterrupt):
            raise ClaimedError(
                f"The work on {self.path.parent} was stopped, as its {self.path.name} was deleted or is of another "
                "process now; to go on, start it again when nobody works on it."
            ) from None

    def _watch(self, parent: str | None) -> None:
        touched = time.monotonic()
        while not self._ended.wait(1.0):
            if time.monotonic() - touched > TOUCH_SECONDS:
                touched = time.monotonic()
                with self._looking, contextlib.suppress(OSError):
                    self._touch()
            if parent is not None and os.getppid() != int(parent):
                parent = None
                os.kill(os.getpid(), signal.SIGTERM)

    def _touch(self) -> None:
        assert self._file is not None
        if self._ended.is_set() or self._lost:
            return
        if _is_at(self._file, self.path):
            os.utime(self.path)
        else:
            self._lost = True
            os.kill(os.getpid(), signal.SIGTERM)


def holder(path: Path) -> str | None:
    """Who works on the cell of a claim file, as a sentence, or None if nobody does."""
    try:
        with path.open("r+") as file:
            return None if _abandoned(file) else _sentence(path, file)
    except FileNotFoundError:
        return None


def _take(path: Path) -> IO[str]:
    while True:
        try:
            file = path.open("x+")
        except FileExistsError:
            try:
                file = path.open("r+")
            except FileNotFoundError:
                continue
            if not _abandoned(file):
                sentence = _sentence(path, file)
                file.close()
                raise ClaimedError(sentence) from None
        else:
            if _lock(file) is False:
                # Another process saw the new file before it was locked.
                file.close()
                continue
        if _is_at(file, path):
            file.seek(0)
            file.truncate()
            json.dump({"host": socket.gethostname(), "machine": _machine(), "process": os.getpid()}, file)
            file.flush()
            return file
        file.close()


def _abandoned(file: IO[str]) -> bool:
    """Whether the owner of an open claim was a process of this machine that is gone; the file is locked then."""
    owner = _owner(file)
    # A claim without text is one whose owner is just writing it, or died on the way: where the lock can tell, it does.
    return owner.get("machine", _machine()) == _machine() and _lock(file) is True


def _lock(file: IO[str]) -> bool | None:
    """True: locked; False: another process has the lock; None: the file system has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _owner(file: IO[str]) -> dict[str, str]:
    file.seek(0)
    try:
        owner = json.load(file)
    except ValueError:
        return {}
    # One that is damaged tells as little as one without text.
    return owner if isinstance(owner, dict) and owner.keys() >= {"host", "machine", "process"} else {}


def _sentence(path: Path, file: IO[str]) -> str:
    owner = _owner(file)
    who = f"process {owner['process']} on {owner['host']}" if owner else "another process"
    age = max(0.0, time.time() - os.fstat(file.fileno()).st_mtime)
    return (
        f"{path.parent} is being worked on by {who}, whose last sign of life is {age / 60:.0f} minutes old; if that "
        f"process is no more, delete {path}."
    )


def _machine() -> str:
    """What tells this machine, since it was started, from others; processes in another container count as elsewhere."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)
