"""Writing files and folders that a reader, or a run started after a crash, sees whole or not at all."""

import hashlib
import json
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from trajplan.errors import CheckpointError

PARTIAL = ".partial-"
# The `model_type` in the config.json of a baseline.
BASELINE_TYPE = "trajplan-baseline"
# Of a dynamics ensemble that was learned by itself.
DYNAMICS_TYPE = "trajplan-dynamics"
# How a run of pretraining went, for people and the card; what a resumed run goes by is in its checkpoints.
RUN = "run.json"


def refuse_file(folder: Path) -> None:
    """Refuse a folder that is a file, or would be in one."""
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise CheckpointError(f"{folder} cannot be made: {path} is a file; choose another --output.")


def make_folder(folder: Path) -> None:
    """Make a folder that may be there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be made: {error.strerror}; choose another --output.") from None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one sentence that `path` cannot be written, in place of what a full disk or a lost permission raises."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise CheckpointError(
            f"{path} cannot be written: {reason}; see to it that the disk has room and may be written to, then resume."
        ) from None


def fsync(path: Path) -> None:
    """Force a file, or a folder's list of names, onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The temporary name under which a file is written; at the end it is forced onto the disk and renamed to `path`.

    Several threads and processes, on several machines too, may do so at once: one of their files stays, whole.
    """
    writer = f"{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}"
    temporary = path.with_name(f"{PARTIAL}{writer}-{path.name}")
    try:
        yield temporary
        fsync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, values: Any) -> None:
    """Write JSON to `path`, atomically."""
    with writing(path), replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a checkpoint."""
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent} is no checkpoint: it has no {path.name}.") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} does not hold a JSON object.")
    return values


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def publish(temporary: Path, final: Path) -> None:
    """Give a written folder its final name, once all that is in it has reached the disk."""
    for path in (*temporary.iterdir(), temporary):
        fsync(path)
    os.rename(temporary, final)
    fsync(final.parent)


def remove_partial(folder: Path) -> None:
    """Delete what an interrupted writer left in a folder."""
    for path in folder.glob(PARTIAL + "*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
