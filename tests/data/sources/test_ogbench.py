import zipfile

import numpy as np
import ogbench
import pytest
import torch

from trajplan.data.dataset import OfflineDataset
from trajplan.data.sources.ogbench import ogbench_id, read_ogbench, single_task_rewards, split_at
from trajplan.errors import DataError

LENGTHS = (4, 2, 3)


@pytest.fixture
def columns():
    """Rows of three episodes as OGBench writes them, with positions that differ from the observations."""
    rng = np.random.default_rng(0)
    rows = sum(LENGTHS) + len(LENGTHS)
    observations = rng.normal(size=(rows, 2)).astype(np.float32)
    terminals = np.zeros(rows, np.bool_)
    terminals[np.cumsum([length + 1 for length in LENGTHS]) - 1] = True
    return {
        "observations": observations,
        "actions": rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
        "terminals": terminals,
        "qpos": observations + 100,
        "qvel": np.zeros((rows, 2), np.float32),
    }


@pytest.fixture
def write(tmp_path):
    def write_file(columns, name="openmaze-tiny-walk-v0.npz"):
        path = tmp_path / name
        np.savez_compressed(path, **columns)
        return path

    return write_file


def read(path, **options):
    arrays, info = read_ogbench(path, **options)
    return OfflineDataset(id=info.id, info=info, **arrays)


def test_the_last_row_of_an_episode_is_no_transition(goal_maze, write, columns):
    dataset = read(write(columns))
    np.testing.assert_array_equal(dataset.lengths, LENGTHS)
    np.testing.assert_array_equal(dataset.observations, columns["observations"])
    batch = dataset.transitions().gather(torch.arange(9))
    for transition, row in enumerate([0, 1, 2, 3, 5, 6, 8, 9, 10]):
        np.testing.assert_array_equal(batch.observations[transition], columns["observations"][row])
        np.testing.assert_array_equal(batch.actions[transition], columns["actions"][row])
        np.testing.assert_array_equal(batch.next_observations[transition], columns["observations"][row + 1])
    assert not dataset.rewards.any()
    assert not dataset.terminations.any()
    np.testing.assert_array_equal(np.flatnonzero(dataset.truncations), [3, 5, 8])
    info = dataset.info
    assert (info.id, info.env_spec.id) == ("ogbench/openmaze-tiny-walk-v0", goal_maze)
    assert (info.num_transitions, info.num_episodes, info.mean_return) == (9, 3, 0.0)
    assert info.goal_columns == (0, 1)


def test_rewards_of_the_file_are_kept(goal_maze, write, columns):
    rewards = np.arange(12.0)
    dataset = read(write(columns | {"rewards": rewards}))
    np.testing.assert_array_equal(dataset.rewards, [0, 1, 2, 3, 5, 6, 8, 9, 10])
    assert dataset.info.mean_return == pytest.approx((6 + 11 + 27) / 3)


def test_rewards_of_a_single_task():
    positions = np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0001], [-5.0, 0.0]])
    rewards, reached = single_task_rewards(positions, (0.0, 0.0), 5.0)
    np.testing.assert_array_equal(rewards, [0, 0, -1, 0])
    np.testing.assert_array_equal(reached, [True, True, False, True])


def test_a_single_task_ends_an_episode_wherever_its_goal_is_reached(goal_maze, write, columns):
    # The goal of task 1 is (8, 0) and its radius 1.
    columns["qpos"][:] = 0
    columns["qpos"][[1, 2, 6, 7]] = [(8, 0), (8, 0.9), (7.2, 0.1), (8, 0)]
    dataset = read(write(columns), task=1)
    # Rows 4, 7 and 11 are no transitions: what is reached in row 7 alone is not.
    np.testing.assert_array_equal(dataset.rewards, [-1, 0, 0, -1, -1, 0, -1, -1, -1])
    np.testing.assert_array_equal(dataset.terminations, dataset.rewards == 0)
    np.testing.assert_array_equal(np.flatnonzero(dataset.truncations), [3, 5, 8])
    np.testing.assert_array_equal(dataset.lengths, [2, 1, 1, 2, 3])
    whole = read(write(columns)).transitions().gather(torch.arange(9))
    split = dataset.transitions().gather(torch.arange(9))
    for name in ("observations", "actions", "next_observations"):
        torch.testing.assert_close(getattr(split, name), getattr(whole, name), rtol=0, atol=0)
    info = dataset.info
    assert (info.id, info.num_episodes) == ("ogbench/openmaze-tiny-walk-singletask-task1-v0", 5)
    assert info.env_spec.id == "openmaze-tiny-singletask-task1-v0"
    assert info.transforms == (
        {
            "name": "ogbench-singletask",
            "task": 1,
            "goal": [8.0, 0.0],
            "radius": 1.0,
            "environment": "openmaze-tiny-singletask-task1-v0",
        },
    )


def test_splitting_keeps_every_transition():
    rng = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, 6, 20))])
    size = int(offsets[-1])
    arrays = {"observations": rng.normal(size=(size + 20, 3)), "offsets": offsets}
    ended = rng.random(size) < 0.4
    split = split_at(arrays, ended)
    ends = set(offsets[1:] - 1) | set(np.flatnonzero(ended))
    np.testing.assert_array_equal(split["offsets"][1:] - 1, sorted(ends))
    assert len(split["observations"]) == size + len(ends)
    for t in range(size):
        before, after = ((np.searchsorted(o, t, side="right") - 1 + t) for o in (offsets, split["offsets"]))
        np.testing.assert_array_equal(
            split["observations"][after : after + 2], arrays["observations"][before : before + 2]
        )


@pytest.mark.parametrize("name", ["pointmaze-medium-stitch-v0", "pointmaze-medium-stitch-singletask-task2-v0"])
def test_equals_what_ogbench_reads(name, tmp_path):
    rng = np.random.default_rng(1)
    # Random walks near the goal of task 2, which is (20, 0), partly inside its radius.
    positions = (20, 0) + 0.3 * rng.normal(size=(33, 2)).cumsum(0).astype(np.float32)
    columns = {
        "observations": positions.astype(np.float32),
        "actions": rng.uniform(-1, 1, (33, 2)).astype(np.float32),
        "terminals": np.arange(33) % 11 == 10,
        "qpos": positions.astype(np.float32),
        "qvel": np.zeros((33, 2), np.float32),
    }
    for suffix in ("", "-val"):
        np.savez_compressed(tmp_path / f"pointmaze-medium-stitch-v0{suffix}.npz", **columns)
    env, theirs, _ = ogbench.make_env_and_datasets(name, dataset_dir=str(tmp_path))
    task = 2 if "singletask" in name else None
    dataset = read(tmp_path / "pointmaze-medium-stitch-v0.npz", task=task)
    ours = dataset.transitions().gather(torch.arange(30))
    for key in ("observations", "actions", "next_observations"):
        np.testing.assert_array_equal(getattr(ours, key), theirs[key])
    assert dataset.id == f"ogbench/{name}"
    assert dataset.info.env_spec == env.spec
    if task is not None:
        assert 0 < theirs["masks"].sum() < 30
        np.testing.assert_array_equal(ours.rewards, theirs["rewards"])
        np.testing.assert_array_equal(ours.terminations, theirs["masks"] == 0)


@pytest.mark.parametrize(
    ("stem", "task", "id"),
    [
        ("pointmaze-medium-stitch-v0", None, "ogbench/pointmaze-medium-stitch-v0"),
        ("pointmaze-medium-stitch-v0-val", None, "ogbench/pointmaze-medium-stitch-val-v0"),
        ("puzzle-3x3-play-v0", None, "ogbench/puzzle-3x3-play-v0"),
        ("antmaze-large-stitch-v0", 3, "ogbench/antmaze-large-stitch-singletask-task3-v0"),
    ],
)
def test_ids_follow_the_files_names(stem, task, id):
    assert ogbench_id(f"{stem}.npz", task) == id


def change(name, values):
    return lambda columns: columns | {name: values(columns[name]) if callable(values) else values}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda c: {k: v for k, v in c.items() if k != "actions"}, "has no 'actions'"),
        (change("actions", lambda a: a[:-1]), r"actions has shape \(11, 2\)"),
        (change("actions", lambda a: a[:, 0]), r"actions has shape \(12,\)"),
        (change("actions", lambda a: a[:, :1]), "actions has 1 columns, and environment openmaze-tiny-v0 has 2"),
        (change("observations", lambda o: o.astype(object)), "observations holds Python objects"),
        (change("observations", np.zeros((12, 64, 64, 3), np.uint8)), r"images \(64, 64, 3\), which are not supported"),
        (change("observations", lambda o: np.where(o == o[5], np.nan, o)), r"observations\[5\] is \[nan, nan\]"),
        (change("terminals", lambda t: np.arange(12) == 3), "the file is cut short"),
        (change("terminals", lambda t: t | (np.arange(12) == 5)), "one row; it takes two"),
        (change("terminals", lambda t: 2 * t), "terminals must hold one true or false"),
        (change("terminals", lambda t: t[:0]), r"observations has shape"),
        (lambda c: dict.fromkeys(c, np.zeros(())), r"observations has shape \(\)"),
    ],
)
def test_what_cannot_be_read_gets_one_sentence(goal_maze, write, columns, changed, message):
    with pytest.raises(DataError, match=message) as caught:
        read(write(changed(columns)))
    assert "\n" not in str(caught.value)


def test_damaged_files_get_one_sentence(goal_maze, write, columns, tmp_path):
    path = write(columns)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"not a zip file", whole[:200] + bytes(100) + whole[300:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"is not an \.npz file or is damaged"):
            read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("observations.npy", "text")
    with pytest.raises(DataError, match="damaged"):
        read(path)
    with pytest.raises(DataError, match="There is no file"):
        read(tmp_path / "nowhere-walk-v0.npz")


def test_names_that_say_nothing_and_unknown_environments(goal_maze, write, columns):
    with pytest.raises(DataError, match=r"--id .* --env"):
        read(write(columns, "mine.npz"))
    assert read(write(columns, "mine.npz"), id="mine/maze-v0", env=goal_maze).id == "mine/maze-v0"
    with pytest.raises(DataError, match=r"'nomaze-tiny-v0' is not registered.*trajplan\[ogbench\]"):
        read(write(columns, "nomaze-tiny-walk-v0.npz"))
    with pytest.raises(DataError, match="'openmaze-tiny-singletask-task4-v0' is not registered"):
        read(write(columns), task=4)
    with pytest.raises(DataError, match="not of a single task in a maze"):
        read(write(columns), task=1, env=goal_maze)
    with pytest.raises(DataError, match="has no positions 'qpos'"):
        read(write({k: v for k, v in columns.items() if k != "qpos"}), task=1)
