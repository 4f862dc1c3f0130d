import json
import multiprocessing
import os
import signal
import time
import weakref

import numpy as np
import pytest

from trajplan.data.cache import build_entry, cache_folder, content_key, open_entry
from trajplan.data.validate import Episode
from trajplan.errors import DataError


def make_episodes(count=5, width=3):
    rng = np.random.default_rng(0)
    for _ in range(count):
        length = int(rng.integers(1, 20))
        flags = np.zeros((2, length), np.bool_)
        flags[0, -1] = True
        arrays = (rng.normal(size=(length + 1, width)), rng.normal(size=(length, 2)), rng.normal(size=length))
        yield Episode(*(array.astype(np.float32) for array in arrays), *flags)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.bin").write_bytes(b"first")
    (folder / "inner" / "b.bin").write_bytes(b"second")
    return folder


def leftovers(cache):
    return [path.name for path in (cache / "datasets").iterdir() if path.name.startswith(".")]


def test_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("TRAJPLAN_CACHE", str(tmp_path / "named"))
    assert cache_folder(None) == tmp_path / "named"
    assert cache_folder(tmp_path / "given") == tmp_path / "given"
    monkeypatch.delenv("TRAJPLAN_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder(None) == tmp_path / ".cache" / "trajplan"


def test_what_is_written_is_read(tmp_path):
    build_entry(tmp_path, "key", make_episodes())
    arrays, summary = open_entry(tmp_path, "key")
    episodes = list(make_episodes())
    for name in ("observations", "actions", "rewards", "terminations", "truncations"):
        np.testing.assert_array_equal(arrays[name], np.concatenate([getattr(e, name) for e in episodes]))
    lengths = [len(e.rewards) for e in episodes]
    np.testing.assert_array_equal(np.diff(arrays["offsets"]), lengths)
    returns = [e.rewards.sum(dtype=np.float64) for e in episodes]
    assert summary == {
        "num_transitions": sum(lengths),
        "num_episodes": 5,
        "mean_return": pytest.approx(np.mean(returns)),
    }
    assert leftovers(tmp_path) == []


def test_writing_to_an_array_never_reaches_the_disk(tmp_path):
    build_entry(tmp_path, "key", make_episodes())
    arrays, _ = open_entry(tmp_path, "key")
    before = float(arrays["rewards"][0])
    arrays["rewards"][0] = 123.0
    del arrays
    assert open_entry(tmp_path, "key")[0]["rewards"][0] == before


@pytest.mark.parametrize(
    "name", ["observations", "actions", "rewards", "terminations", "truncations", "offsets", "cache.json"]
)
@pytest.mark.parametrize("damage", ["cut", "longer", "missing"])
def test_damage_is_noticed_and_repaired(tmp_path, name, damage):
    build_entry(tmp_path, "key", make_episodes())
    path = tmp_path / "datasets" / "key" / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if damage == "cut" else content + b"}")
    assert open_entry(tmp_path, "key") is None
    build_entry(tmp_path, "key", make_episodes())
    assert open_entry(tmp_path, "key") is not None
    assert path.read_bytes() == content
    assert leftovers(tmp_path) == []


def test_scrambled_offsets_are_noticed(tmp_path):
    build_entry(tmp_path, "key", make_episodes())
    path = tmp_path / "datasets" / "key" / "offsets"
    offsets = np.fromfile(path, "<i8")
    offsets[1], offsets[2] = offsets[2], offsets[1]
    offsets.tofile(path)
    assert open_entry(tmp_path, "key") is None


def test_an_error_midway_leaves_nothing(tmp_path):
    def failing():
        yield from make_episodes(2)
        raise DataError("episode 2: bad")

    with pytest.raises(DataError, match="episode 2"):
        build_entry(tmp_path, "key", failing())
    assert list((tmp_path / "datasets").iterdir()) == []


def _build_slowly(cache, started):
    def slow():
        yield from make_episodes(1)
        started.set()
        time.sleep(60)

    build_entry(cache, "key", slow())


def test_episodes_are_written_as_they_come(tmp_path):
    """Memory stays at an episode or two, however long the dataset."""
    references = []

    def watched():
        for episode in make_episodes(50):
            references.append(weakref.ref(episode.observations))
            assert sum(reference() is not None for reference in references) <= 3
            yield episode

    build_entry(tmp_path, "key", watched())


def test_a_killed_build_is_cleared_away_by_the_next(tmp_path):
    context = multiprocessing.get_context("fork")
    started = context.Event()
    process = context.Process(target=_build_slowly, args=(tmp_path, started))
    process.start()
    assert started.wait(30)
    assert len(leftovers(tmp_path)) == 1
    assert open_entry(tmp_path, "key") is None
    # While it works, another build leaves it alone.
    build_entry(tmp_path, "other", make_episodes())
    assert len(leftovers(tmp_path)) == 1
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    build_entry(tmp_path, "key", make_episodes())
    assert open_entry(tmp_path, "key") is not None
    assert leftovers(tmp_path) == []


def _build_many(cache, barrier):
    for round in range(10):
        barrier.wait(30)
        build_entry(cache, f"key{round}", make_episodes())
        assert open_entry(cache, f"key{round}") is not None


def test_concurrent_builders_of_one_entry(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    processes = [context.Process(target=_build_many, args=(tmp_path, barrier)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert leftovers(tmp_path) == []


def test_a_cache_that_cannot_be_written(tmp_path, source):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DataError, match="TRAJPLAN_CACHE"):
        build_entry(tmp_path / "file", "key", make_episodes())
    with pytest.raises(DataError, match="TRAJPLAN_CACHE"):
        content_key(source, tmp_path / "file")


def test_key_follows_the_content(tmp_path, source):
    key = content_key(source, tmp_path)
    assert content_key(source, tmp_path) == key
    # The same files elsewhere have the same key, other names another.
    copy = tmp_path / "copy"
    (copy / "inner").mkdir(parents=True)
    (copy / "a.bin").write_bytes(b"first")
    (copy / "inner" / "b.bin").write_bytes(b"second")
    assert content_key(copy, tmp_path) == key
    (copy / "a.bin").rename(copy / "c.bin")
    assert content_key(copy, tmp_path) != key


def test_key_notices_a_change_that_keeps_size_and_modification_time(tmp_path, source):
    key = content_key(source, tmp_path)
    path = source / "inner" / "b.bin"
    status = path.stat()
    path.write_bytes(b"SECOND")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert content_key(source, tmp_path) != key


def test_key_is_remembered(tmp_path, source, monkeypatch):
    key = content_key(source, tmp_path)
    memos = list((tmp_path / "sources").iterdir())
    assert len(memos) == 1
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("the files were read again"))
    assert content_key(source, tmp_path) == key
    # A damaged memory is no harm.
    monkeypatch.undo()
    memos[0].write_text(json.dumps([1, 2]))
    assert content_key(source, tmp_path) == key
    memos[0].write_text("{")
    assert content_key(source, tmp_path) == key
