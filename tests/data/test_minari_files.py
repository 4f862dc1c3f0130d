"""A saved dataset is the one that was held: arrays, spaces, environment and scores, for every kind of space."""

import json
from dataclasses import replace

import gymnasium
import minari
import numpy as np
import pytest
from gymnasium import spaces

from trajplan.cli import main
from trajplan.data.dataset import OfflineDataset
from trajplan.data.scores import ReferenceScores
from trajplan.errors import DataError

ARRAYS = ("observations", "actions", "rewards", "terminations", "truncations", "offsets")


def same(saved, held):
    for name in ARRAYS:
        before, after = getattr(held, name), getattr(saved, name)
        assert after.dtype == before.dtype
        np.testing.assert_array_equal(after, before)
    assert saved.info.observation_space == held.info.observation_space
    assert saved.info.action_space == held.info.action_space
    assert saved.info.env_spec == held.info.env_spec
    before, after = held.info.reference, saved.info.reference
    assert (after and (after.min, after.max)) == (before and (before.min, before.max))


def pendulum_episodes(make_episode, ends=("timeout", "terminal", "both", "neither")):
    rng = np.random.default_rng(0)
    return [make_episode(rng, 4 + i, action_width=1, end=end) for i, end in enumerate(ends)]


def test_what_is_read_is_what_was_saved(make_episode, data_root):
    # One that just stops has neither flag, and keeps it so.
    episodes = pendulum_episodes(make_episode)
    episodes[0]["actions"][0] = 7.0  # beyond the environment's bounds, and not clipped
    held = OfflineDataset.from_episodes(
        episodes, id="mine", env_spec="Pendulum-v1", reference=ReferenceScores(-1500.0, -150.0, "me")
    )
    folder = held.save("mine/pendulum-v0")
    assert folder == data_root[0] / "mine" / "pendulum-v0"
    saved = OfflineDataset.from_minari("mine/pendulum-v0")
    same(saved, held)
    assert saved.info.make_env().spec.id == "Pendulum-v1"
    # And for Minari itself it is a dataset like any other.
    read = minari.load_dataset("mine/pendulum-v0")
    assert (read.total_episodes, read.total_steps) == (4, 22)
    assert read.recover_environment().spec.id == "Pendulum-v1"
    np.testing.assert_array_equal(read[3].rewards, episodes[3]["rewards"])
    assert not read[3].terminations.any()
    assert not read[3].truncations.any()


def test_a_memory_mapped_dataset_is_saved_under_another_name(write_minari, episodes):
    write_minari("toy/data-v0", episodes)
    mapped = OfflineDataset.from_minari("toy/data-v0")
    mapped.save("toy/copy-v0", description="A copy.")
    same(OfflineDataset.from_minari("toy/copy-v0"), mapped)
    assert minari.load_dataset("toy/copy-v0").storage.metadata["description"] == "A copy."


def test_dictionaries_of_observations(data_root, make_episode):
    inner = spaces.Dict({"b": spaces.Box(-1e3, 1e3, (2, 2), np.float64), "a": spaces.Box(0, 9, (3,), np.int64)})
    space = spaces.Dict({"z": inner, "goal": spaces.Box(-np.inf, np.inf, (1,), np.float32)})
    rng = np.random.default_rng(1)
    episode = make_episode(rng, 6)
    episode["observations"] = {
        "z": {"a": rng.integers(0, 9, (7, 3)), "b": rng.normal(size=(7, 2, 2)) * 100},
        "goal": rng.normal(size=(7, 1)),
    }
    held = OfflineDataset.from_episodes([episode], observation_space=space)
    held.save("mine/nested-v0")
    same(OfflineDataset.from_minari("mine/nested-v0"), held)
    recorded = minari.load_dataset("mine/nested-v0")[0].observations
    np.testing.assert_array_equal(recorded["z"]["a"], episode["observations"]["z"]["a"])
    assert recorded["z"]["a"].dtype == np.int64
    np.testing.assert_array_equal(recorded["z"]["b"], episode["observations"]["z"]["b"].astype(np.float32))


@pytest.mark.parametrize(
    ("space", "actions"),
    [
        (spaces.Discrete(3, start=5), [5, 7, 6, 5]),
        (spaces.Box(0, 4, (2, 1), np.uint8), [[[0], [4]], [[1], [2]], [[3], [3]], [[4], [0]]]),
        # What an integer space cannot hold is kept as it was given.
        (spaces.Box(0, 4, (1,), np.int32), [[0.5], [1.0], [2.0], [3.25]]),
    ],
)
def test_actions_of_other_kinds(data_root, make_episode, space, actions):
    episode = {**make_episode(np.random.default_rng(2), 4), "actions": np.array(actions)}
    held = OfflineDataset.from_episodes([episode], action_space=space)
    held.save("mine/actions-v0")
    same(OfflineDataset.from_minari("mine/actions-v0"), held)
    recorded = minari.load_dataset("mine/actions-v0")[0].actions
    np.testing.assert_array_equal(recorded.reshape(-1), np.array(actions).reshape(-1))


def test_the_environments_arguments_and_wrappers_are_kept(data_root, make_episode):
    spec = replace(gymnasium.spec("Pendulum-v1"), kwargs={"g": 1.5}, max_episode_steps=30)
    held = OfflineDataset.from_episodes(pendulum_episodes(make_episode), env_spec=spec)
    held.save("mine/light-v0")
    env = OfflineDataset.from_minari("mine/light-v0").info.make_env()
    assert env.unwrapped.g == 1.5
    assert env.spec.max_episode_steps == 30


def test_saving_never_runs_the_environments_code(data_root, make_episode):
    """A dataset may come from anywhere, and so does the code that its environment names."""
    spec = gymnasium.envs.registration.EnvSpec("Evil-v0", entry_point="nowhere:Env")
    box = spaces.Box(-1.0, 1.0, (1,), np.float32)
    observed = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    held = OfflineDataset.from_episodes(
        pendulum_episodes(make_episode), observation_space=observed, action_space=box, env_spec=spec
    )
    held.save("mine/evil-v0")
    same(OfflineDataset.from_minari("mine/evil-v0"), held)


def test_the_command_line_knows_it(data_root, make_episode, capsys):
    reference = ReferenceScores(-20.0, 20.0, "me")
    OfflineDataset.from_episodes(pendulum_episodes(make_episode), env_spec="Pendulum-v1", reference=reference).save(
        "mine/pendulum-v0"
    )
    assert main(["datasets", "list"]) == 0
    line = capsys.readouterr().out.splitlines()[1].split()
    assert (line[0], line[1], line[2], line[-1]) == ("mine/pendulum-v0", "4", "22", "Pendulum-v1")
    assert main(["datasets", "show", "mine/pendulum-v0", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["episodes_ending_in"] == {"terminal": 1, "timeout": 1, "both": 1, "neither": 1}
    assert (summary["reference"]["min"], summary["reference"]["max"]) == (-20.0, 20.0)


def test_refused_in_a_sentence_and_leaving_nothing(data_root, make_episode, monkeypatch, tmp_path):
    held = OfflineDataset.from_episodes(pendulum_episodes(make_episode), env_spec="Pendulum-v1")
    held.save("mine/pendulum-v0")
    before = sorted(data_root[0].rglob("*"))
    refused = [
        (held, "mine/pendulum-v0", "exists already"),
        (held, "pendulum", "is not a Minari id"),
        (
            replace(held, info=replace(held.info, env_spec=replace(held.info.env_spec, entry_point=lambda: None))),
            "mine/other-v0",
            "module:Class",
        ),
    ]
    for dataset, id, words in refused:
        with pytest.raises(DataError, match=words):
            dataset.save(id)
    assert sorted(data_root[0].rglob("*")) == before
    (tmp_path / "file").touch()
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cannot be used.*MINARI_DATASETS_PATH") as error:
        held.save("mine/other-v0")
    assert "\n" not in str(error.value)


def test_an_error_halfway_leaves_nothing(data_root, make_episode, monkeypatch):
    held = OfflineDataset.from_episodes(pendulum_episodes(make_episode), env_spec="Pendulum-v1")
    written = []

    def full(actions, space):
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(actions)
        return actions

    monkeypatch.setattr("trajplan.data.minari_files._actions", full)
    with pytest.raises(DataError, match="No space left"):
        held.save("mine/pendulum-v0")
    assert not (data_root[0] / "mine" / "pendulum-v0").exists()
    assert [path.name for path in data_root[0].iterdir() if path.name.startswith(".")] == []


def test_what_came_meanwhile_is_not_written_over(data_root, make_episode, monkeypatch):
    """Two processes may save under one id; the second finds it taken at the end."""
    held = OfflineDataset.from_episodes(pendulum_episodes(make_episode), env_spec="Pendulum-v1")
    held.save("mine/pendulum-v0")
    monkeypatch.setattr("trajplan.data.minari_files.check_new_id", lambda id: None)
    other = OfflineDataset.from_episodes(pendulum_episodes(make_episode)[:1], env_spec="Pendulum-v1")
    with pytest.raises(DataError, match="cannot be put into"):
        other.save("mine/pendulum-v0")
    same(OfflineDataset.from_minari("mine/pendulum-v0"), held)
    assert [path.name for path in data_root[0].iterdir() if path.name.startswith(".")] == []
