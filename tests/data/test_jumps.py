"""Jumps inside episodes: found where a walker is put back to its start, and nowhere in continuous data."""

import h5py
import numpy as np
import pytest

from trajplan.data.dataset import OfflineDataset
from trajplan.data.jumps import find_jumps
from trajplan.data.sources.d4rl import read_d4rl

LENGTH, EPISODES = 120, 30
LATE = 2  # rows by which the timeouts miss the resets


def maze(rng):
    """Position, velocity and a goal (N, 6) of a walker that is put back to the origin every `LENGTH` steps."""
    episodes = []
    for _ in range(EPISODES):
        heading = rng.uniform(0, np.pi / 2)
        velocity = np.stack([np.cos(heading), np.sin(heading)]) + 0.3 * rng.normal(size=(LENGTH, 2))
        position = rng.normal(size=2) * 0.1 + np.cumsum(0.05 * velocity, 0)
        goal = np.broadcast_to(rng.integers(0, 9, 2).astype(float), (LENGTH, 2))
        episodes.append(np.concatenate([position, velocity, goal], 1))
    return np.concatenate(episodes).astype(np.float32)


def hopper(rng):
    """Joint angles and velocities (N, 6) of a gait with impacts, episodes of random length; and their ends (N,)."""
    episodes, ends = [], []
    for _ in range(EPISODES):
        steps = int(rng.integers(50, 400))
        phase = rng.uniform(0, 7) + 0.25 * np.arange(steps)[:, None] * rng.uniform(0.8, 1.2, 3)
        impacts = rng.normal(size=(steps, 3)) * 4.0 * (rng.random((steps, 3)) < 0.05)
        velocity = np.cos(phase) + 0.05 * rng.normal(size=(steps, 3)) + impacts
        episodes.append(np.concatenate([np.sin(phase) + 0.01 * rng.normal(size=(steps, 3)), velocity], 1))
        ends += [False] * (steps - 1) + [True]
    return np.concatenate(episodes).astype(np.float32), np.array(ends)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def regular_ends(late=0):
    ends = np.zeros(LENGTH * EPISODES, np.bool_)
    ends[LENGTH - 1 + late :: LENGTH] = True
    ends[-1] = True
    return ends


def test_resets_inside_episodes_are_found(rng):
    observations = maze(rng)
    resets = np.arange(LENGTH - 1, LENGTH * EPISODES - 1, LENGTH)
    np.testing.assert_array_equal(find_jumps(observations, regular_ends(LATE)), resets)
    # Few blocks or many, an array or a file's.
    np.testing.assert_array_equal(find_jumps(observations[:-50], regular_ends(LATE)[:-50]), resets)


def test_blocks_do_not_matter(rng, monkeypatch):
    observations = maze(rng)
    whole = find_jumps(observations, regular_ends(LATE))
    monkeypatch.setattr("trajplan.data.jumps._VALUES", 6 * 7)
    np.testing.assert_array_equal(find_jumps(observations, regular_ends(LATE)), whole)


def test_there_are_none_where_flags_and_resets_agree(rng):
    observations = maze(rng)
    assert len(find_jumps(observations, regular_ends())) == 0
    # And the walker's way is what counts, not how far it is from one episode to the next.
    assert len(find_jumps(observations * 1000, regular_ends())) == 0


def test_there_are_none_in_a_gait_with_impacts(rng):
    observations, ends = hopper(rng)
    assert len(find_jumps(observations, ends)) == 0


def test_goals_and_contacts_are_no_jumps(rng):
    """What stands still in most steps changes by large steps only."""
    observations = maze(rng)
    observations[60::LENGTH, 4] += 5.0
    touched = (rng.random(len(observations)) < 0.004).astype(np.float32)[:, None]
    constant = np.ones_like(touched)
    assert len(find_jumps(np.concatenate([observations, touched, constant], 1), regular_ends())) == 0


def test_odd_sizes():
    assert len(find_jumps(np.zeros((1, 2)), np.array([True]))) == 0
    assert len(find_jumps(np.arange(6.0)[:, None], np.ones(6, np.bool_))) == 0
    assert len(find_jumps(np.arange(6.0)[:, None], np.zeros(6, np.bool_))) == 0


def write(path, observations, timeouts, **columns):
    with h5py.File(path, "w") as file:
        file["observations"], file["timeouts"] = observations, timeouts
        file["actions"] = np.zeros((len(timeouts), 2), np.float32)
        file["rewards"] = np.arange(len(timeouts), dtype=np.float32)
        file["terminals"] = np.zeros(len(timeouts), np.bool_)
        for name, values in columns.items():
            file[name] = values
    return path


def test_an_import_counts_and_names_them(rng, tmp_path):
    path = write(tmp_path / "antmaze-umaze-v0.hdf5", maze(rng), regular_ends(LATE))
    arrays, _, notes = read_d4rl(path)
    (note,) = [note for note in notes if "jumps" in note]
    for part in ("29 rows (the first is row 119)", "out of step", "--cut-jumps", "next_observations"):
        assert part in note
    # It only tells: the episodes are as the flags have them.
    assert np.diff(arrays["offsets"]).tolist() == [121, *[119] * 28, 117]


def test_cutting_ends_an_episode_at_each(rng, tmp_path):
    observations = maze(rng)
    path = write(tmp_path / "antmaze-umaze-v0.hdf5", observations, regular_ends(LATE))
    arrays, info, notes = read_d4rl(path, cut_jumps=True)
    assert any("an episode was ended there" in note for note in notes)
    dataset = OfflineDataset(id=info.id, info=info, **arrays)
    # No transition crosses a reset, and those between a reset and its late timeout are an episode of their own.
    ends = np.zeros(len(dataset.observations), np.bool_)
    ends[dataset.offsets[1:] + np.arange(dataset.num_episodes)] = True
    assert np.abs(np.diff(dataset.observations[:, :2], axis=0))[~ends[:-1]].max() < 0.5
    assert set(dataset.lengths.tolist()) == {1, LENGTH - 1, LENGTH - LATE - 1}
    assert dataset.truncations[dataset.offsets[1:] - 1].all()


def test_nothing_is_said_where_there_are_none(rng, tmp_path):
    observations, ends = hopper(rng)
    *_, notes = read_d4rl(write(tmp_path / "hopper_medium-v0.hdf5", observations, ends))
    assert not any("jump" in note for note in notes)


def test_files_with_next_observations_need_no_search(rng, tmp_path, monkeypatch):
    monkeypatch.setattr("trajplan.data.sources.d4rl.find_jumps", lambda *args: pytest.fail("searched"))
    observations = maze(rng)
    following = np.concatenate([observations[1:], observations[-1:]])
    following[LENGTH - 1 :: LENGTH] += 0.1
    read_d4rl(write(tmp_path / "maze.hdf5", observations, regular_ends(), next_observations=following))
