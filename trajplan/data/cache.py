"""Flat files of a dataset on disk: written episode by episode, renamed into place when whole, opened as memory maps.

A cache entry is a folder named by the content of its source. It holds one raw little-endian file per array and
`cache.json` with their shapes, so that opening it reads nothing else and a truncated file is noticed.
"""

import hashlib
import json
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from trajplan.data.validate import Episode
from trajplan.errors import DataError
from trajplan.files import replacing

FORMAT = 1
_DTYPES = {
    "observations": "<f4",
    "actions": "<f4",
    "rewards": "<f4",
    "terminations": "|b1",
    "truncations": "|b1",
    "offsets": "<i8",
}


def cache_folder(cache_dir: str | Path | None) -> Path:
    """The cache's folder: as given, else `TRAJPLAN_CACHE`, else `~/.cache/trajplan`."""
    return Path(cache_dir or os.environ.get("TRAJPLAN_CACHE") or Path.home() / ".cache" / "trajplan").expanduser()


def content_key(source: Path, cache: Path) -> str:
    """Key of the content of all files under a folder (blake2b, 40 hexadecimal digits).

    Reading gigabytes takes seconds, so the key is remembered beside the cache for as long as no file's size,
    modification time, change time or inode differs.
    """
    memo = cache / "sources" / (hashlib.blake2b(os.fsencode(source.resolve()), digest_size=20).hexdigest() + ".json")
    stamp = source_stamp(source)
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(memo.read_text())
        if known["format"] == FORMAT and known["stamp"] == stamp:
            return str(known["key"])
    digest = hashlib.blake2b(f"trajplan {FORMAT}".encode(), digest_size=20)
    for name, *_ in stamp:
        try:
            with open(source / name, "rb") as file:
                content = hashlib.file_digest(file, "blake2b").digest()
        except OSError as error:
            raise DataError(f"The file {source / name} cannot be read: {error.strerror}.") from None
        digest.update(hashlib.blake2b(name.encode()).digest() + content)
    key = digest.hexdigest()
    check_unchanged(source, stamp)
    with _writing(cache):
        memo.parent.mkdir(parents=True, exist_ok=True)
        with replacing(memo) as temporary:
            temporary.write_text(json.dumps({"format": FORMAT, "path": str(source), "stamp": stamp, "key": key}))
    return key


def key_together(keys: Sequence[str]) -> str:
    """Key of several sources one after the other; that of a single one is its own."""
    if len(keys) == 1:
        return keys[0]
    return hashlib.blake2b(" ".join(keys).encode(), digest_size=20).hexdigest()


def check_unchanged(source: Path, stamp: list[list[Any]]) -> None:
    """Raise DataError when the files are not those that `stamp` was taken of."""
    if source_stamp(source) != stamp:
        raise DataError(f"The files in {source} changed while they were read; try again when nothing writes to them.")


def source_stamp(source: Path) -> list[list[Any]]:
    """Name, size, modification time, change time and inode of every file under a folder: see `content_key`."""
    stamp = []
    try:
        for path in sorted(source.rglob("*")):
            if path.is_file():
                status = path.stat()
                times = [status.st_mtime_ns, status.st_ctime_ns]
                stamp.append([path.relative_to(source).as_posix(), status.st_size, *times, status.st_ino])
    except OSError as error:
        raise DataError(f"The files in {source} cannot be read: {error.strerror}.") from None
    return stamp


def open_entry(cache: Path, key: str) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """Arrays (private memory maps) and summary of an entry, or None when there is none or it is damaged."""
    folder = cache / "datasets" / key
    try:
        header = json.loads((folder / "cache.json").read_text())
        arrays = {name: _map(folder / name, _DTYPES[name], header["shapes"][name]) for name in _DTYPES}
        offsets = np.array(arrays["offsets"])
        transitions, episodes = len(arrays["rewards"]), len(offsets) - 1
        consistent = (
            header["format"] == FORMAT
            and episodes > 0
            and offsets[0] == 0
            and offsets[-1] == transitions
            and (np.diff(offsets) > 0).all()
            and len(arrays["observations"]) == transitions + episodes
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not consistent:
        return None
    return {**arrays, "offsets": offsets}, header["summary"]


def _map(path: Path, dtype: str, shape: list[int]) -> np.ndarray:
    expected = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if path.stat().st_size != expected:
        raise ValueError(f"{path} has {path.stat().st_size} bytes instead of {expected}")
    # Copy-on-write: nothing reaches the file, and torch shares the memory without complaint.
    return np.memmap(path, dtype=dtype, mode="c", shape=tuple(shape))


def build_entry(cache: Path, key: str, episodes: Iterable[Episode]) -> None:
    """Write an entry, episode by episode, and rename it into place; memory stays at one episode.

    When another process finishes the same entry first, this one's is thrown away.
    """
    parent = cache / "datasets"
    with _writing(cache):
        parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(parent)
        with _scratch(parent, key) as folder:
            _write(folder, episodes)
            _put_in_place(folder, parent / key)


@contextmanager
def _writing(cache: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"The dataset cache in {cache} cannot be written ({error.strerror}); free some space or name another "
            "folder in TRAJPLAN_CACHE."
        ) from None


def _write(folder: Path, episodes: Iterable[Episode]) -> None:
    offsets, returns = [0], 0.0
    widths: dict[str, tuple[int, ...]] = {}
    rows = dict.fromkeys(_DTYPES, 0)
    with ExitStack() as stack:
        # Plain writes, not stores to a memory map: mapped pages would count as resident memory.
        files = {name: stack.enter_context(open(folder / name, "wb", buffering=2**20)) for name in _DTYPES}
        for episode in episodes:
            for name, dtype in _DTYPES.items():
                if name != "offsets":
                    array = np.ascontiguousarray(getattr(episode, name), dtype=dtype)
                    files[name].write(array.data)
                    rows[name] += len(array)
                    widths[name] = array.shape[1:]
            offsets.append(offsets[-1] + len(episode.rewards))
            returns += float(episode.rewards.sum(dtype=np.float64))
        files["offsets"].write(np.array(offsets, dtype="<i8").data)
        rows["offsets"] = len(offsets)
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    count = len(offsets) - 1
    header = {
        "format": FORMAT,
        "shapes": {name: [rows[name], *widths.get(name, ())] for name in _DTYPES},
        "summary": {"num_transitions": offsets[-1], "num_episodes": count, "mean_return": returns / max(count, 1)},
    }
    (folder / "cache.json").write_text(json.dumps(header))


def _put_in_place(folder: Path, target: Path) -> None:
    for _ in range(2):
        try:
            os.rename(folder, target)
            return
        except OSError:
            if open_entry(target.parent.parent, target.name) is not None:
                return
            # What is there is damaged. Move it out of the way in one step; others may be doing the same.
            with suppress(FileNotFoundError), tempfile.TemporaryDirectory(dir=target.parent, prefix=".old-") as old:
                os.rename(target, Path(old) / "entry")
    os.rename(folder, target)


@contextmanager
def _scratch(parent: Path, key: str) -> Iterator[Path]:
    # The host and process in the name let a later build tell a leftover from work in progress.
    folder = parent / f".build-{key[:8]}-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_leftovers(parent: Path) -> None:
    """Remove what killed builds of this machine left behind."""
    for folder in parent.glob(f".build-*-{socket.gethostname()}-*-*"):
        process = int(folder.name.rsplit("-", 2)[1])
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except PermissionError:
            continue
