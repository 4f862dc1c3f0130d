import h5py
import numpy as np
import pytest
import torch

from trajplan.data.dataset import OfflineDataset
from trajplan.data.scores import ReferenceScores
from trajplan.data.sources.d4rl import read_d4rl
from trajplan.errors import DataError

ENDS = {4: "terminal", 5: "timeout", 11: "both"}  # the row an episode ends at; rows 12 to 14 are never ended
ROWS = 15


@pytest.fixture
def columns():
    """Flat rows of four episodes as D4RL writes them, with true next observations."""
    rng = np.random.default_rng(0)
    store = rng.normal(size=(ROWS + 4, 3)).astype(np.float32)
    episode = np.searchsorted(sorted(ENDS), np.arange(ROWS))
    rows = np.arange(ROWS) + episode
    terminals, timeouts = np.zeros((2, ROWS), np.bool_)
    terminals[[row for row, end in ENDS.items() if end in ("terminal", "both")]] = True
    timeouts[[row for row, end in ENDS.items() if end in ("timeout", "both")]] = True
    return {
        "observations": store[rows],
        "next_observations": store[rows + 1],
        "actions": rng.uniform(-1, 1, (ROWS, 2)).astype(np.float32),
        "rewards": rng.normal(size=ROWS).astype(np.float32),
        "terminals": terminals,
        "timeouts": timeouts,
    }


@pytest.fixture
def write(tmp_path):
    def write_file(columns, name="toy_medium-v2.hdf5"):
        path = tmp_path / name
        with h5py.File(path, "w") as file:
            for key, values in columns.items():
                file[key] = values
            # What real files hold besides; none of it is read.
            file["metadata/algorithm"] = np.bytes_("SAC")
            file["infos/qpos"] = np.zeros((ROWS, 2))
        return path

    return write_file


def read(path, **options):
    arrays, info, notes = read_d4rl(path, **options)
    return OfflineDataset(id=info.id, info=info, **arrays), notes


def test_with_next_observations_nothing_is_lost(write, columns):
    dataset, notes = read(write(columns))
    np.testing.assert_array_equal(dataset.lengths, [5, 1, 6, 3])
    np.testing.assert_array_equal(dataset.rewards, columns["rewards"])
    np.testing.assert_array_equal(dataset.actions, columns["actions"])
    batch = dataset.transitions().gather(torch.arange(ROWS))
    np.testing.assert_array_equal(batch.observations, columns["observations"])
    np.testing.assert_array_equal(batch.next_observations, columns["next_observations"])
    # Terminals and timeouts stay apart, and a row with both keeps both.
    np.testing.assert_array_equal(dataset.terminations, columns["terminals"])
    np.testing.assert_array_equal(dataset.truncations, columns["timeouts"])
    assert notes == []


def test_without_next_observations_only_unknown_successors_are_dropped(write, columns):
    del columns["next_observations"]
    columns["timeouts"][8] = True
    dataset, notes = read(write(columns))
    # Row 5 was an episode of its own, row 8 and row 14 ends of longer ones; terminals 4 and 11 keep their rewards.
    kept = [0, 1, 2, 3, 4, 6, 7, 9, 10, 11, 12, 13]
    np.testing.assert_array_equal(dataset.rewards, columns["rewards"][kept])
    np.testing.assert_array_equal(dataset.lengths, [5, 2, 3, 2])
    np.testing.assert_array_equal(np.flatnonzero(dataset.terminations), [4, 9])
    np.testing.assert_array_equal(np.flatnonzero(dataset.truncations), [6, 9])
    # The observation after a dropped transition's predecessor is known: it is the dropped one's own.
    np.testing.assert_array_equal(dataset.observations[6 + 2], columns["observations"][8])
    # After a terminal it is not known, and the last is repeated.
    np.testing.assert_array_equal(dataset.observations[5], columns["observations"][4])
    (note,) = notes
    assert (
        "no next_observations: 3 episodes that were cut off lost their last transition, and after 2 terminals" in note
    )


def test_sparse_rewards_at_terminals_survive(write, columns):
    """Dropping last steps would erase every reward of an antmaze file."""
    del columns["next_observations"]
    columns["rewards"] = columns["terminals"].astype(np.float32)
    assert read(write(columns))[0].returns.sum() == 2.0


def test_files_without_timeouts_need_the_limit(write, columns):
    del columns["timeouts"]
    path = write(columns)
    with pytest.raises(DataError, match="--time-limit"):
        read(path)
    del columns["next_observations"]
    dataset, _ = read(write(columns), time_limit=4)
    # Rows 0-3 | 4 (terminal) | 5-8 | 9-11 (terminal) | 12-14; the last of each cut episode is dropped.
    np.testing.assert_array_equal(dataset.lengths, [3, 1, 3, 3, 2])


def test_maze2d_timeouts_are_explained(write, columns):
    dataset, notes = read(write(columns, "maze2d-umaze-sparse-v1.hdf5"))
    assert any("goal was moved" in note for note in notes)
    assert (dataset.info.reference.min, dataset.info.reference.max) == (23.85, 161.86)


def test_reference_scores_by_name_and_by_hand(write, columns):
    reference = read(write(columns, "hopper_medium-v2.hdf5"))[0].info.reference
    assert (reference.min, reference.max) == (-20.272305, 3234.3)
    assert read(write(columns), reference=ReferenceScores(0.0, 7.0, "me"))[0].info.reference.max == 7.0
    assert read(write(columns))[0].info.reference is None


def test_the_environment_is_recorded_and_must_fit(write, columns):
    columns["actions"] = columns["actions"][:, :1]
    assert read(write(columns), env="Pendulum-v1")[0].info.env_spec.id == "Pendulum-v1"
    with pytest.raises(DataError, match=r"episode 0: observation has shape .*\(environment MountainCarContinuous-v0\)"):
        read(write(columns), env="MountainCarContinuous-v0")
    with pytest.raises(DataError, match="Nowhere-v0"):
        read(write(columns), env="Nowhere-v0")


@pytest.mark.parametrize("name", ["observations", "actions", "rewards", "terminals"])
def test_missing_columns(write, columns, name):
    del columns[name]
    with pytest.raises(DataError, match=name):
        read(write(columns))


def test_rewards_in_a_column_are_not_broadcast(write, columns):
    columns["rewards"] = columns["rewards"][:, None]
    np.testing.assert_array_equal(read(write(columns))[0].rewards, columns["rewards"][:, 0])
    columns["rewards"] = np.tile(columns["rewards"], 2)
    with pytest.raises(DataError, match="rewards has shape"):
        read(write(columns))


@pytest.mark.parametrize("name", ["observations", "actions", "rewards", "terminals", "timeouts", "next_observations"])
def test_columns_of_different_lengths(write, columns, name):
    columns[name] = columns[name][:-1]
    with pytest.raises(DataError, match=f"{name} 14"):
        read(write(columns))


def test_shuffled_rows_are_refused(write, columns):
    order = np.random.default_rng(0).permutation(ROWS)
    columns = {name: values[order] for name, values in columns.items()}
    with pytest.raises(DataError, match="whole trajectories"):
        read(write(columns))


def test_bad_values(write, columns):
    columns["rewards"][13] = np.nan
    with pytest.raises(DataError, match="episode 3: rewards"):
        read(write(columns))
    columns["rewards"][13] = 0.0
    columns["terminals"] = np.full(ROWS, 0.5)
    with pytest.raises(DataError, match="terminals"):
        read(write(columns))


def test_damaged_files(write, columns, tmp_path):
    path = write(columns)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="damaged"):
        read(path)
    path.write_bytes(b"not hdf5")
    with pytest.raises(DataError, match="not an HDF5 file"):
        read(path)
    with pytest.raises(DataError, match="no file"):
        read(tmp_path / "nowhere.hdf5")


@pytest.mark.parametrize("name", ["observations", "rewards", "terminals"])
def test_columns_of_text(write, columns, name):
    columns[name] = np.full(ROWS, b"text")
    with pytest.raises(DataError, match=f"{name} has shape"):
        read(write(columns))
