"""Collection: what is recorded, that it is repeatable, and that nothing half-built stays behind."""

import textwrap

import gymnasium as gym
import minari
import numpy as np
import pytest

from trajplan.data.collection.collect import (
    collect_dataset,
    episode_seed,
    make_collection_environment,
    make_policy,
    run_episode,
)
from trajplan.data.scores import ReferenceScores
from trajplan.errors import ConfigError, DataError


@pytest.fixture
def root(tmp_path, monkeypatch):
    folder = tmp_path / "minari"
    folder.mkdir()
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    return folder


@pytest.fixture
def policy_module(tmp_path, monkeypatch):
    """A module `my_policies` in the working folder."""
    (tmp_path / "my_policies.py").write_text(
        textwrap.dedent("""
        def balance(observation, rng):
            return int(observation[2] + rng.normal() * 0.01 > 0)

        def broken(observation, rng):
            return 1 // 0

        def absurd(observation, rng):
            return 7
        """)
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_maze_episodes_are_what_the_environment_gave(root):
    """T+1 observations, goal switches neither terminal nor truncation, and a replay of the actions reproduces all."""
    levels = [0.5, 2.0]
    folder = collect_dataset(
        "PointMaze_UMaze-v3", "pointmaze/umaze-v0", episodes=4, policy="waypoint", noise=levels, max_episode_steps=150
    )
    assert folder == root / "pointmaze" / "umaze-v0"
    dataset = minari.load_dataset("pointmaze/umaze-v0")
    assert (dataset.total_episodes, dataset.total_steps) == (4, 600)
    notes = list(dataset.storage.get_episode_metadata(range(4)))
    assert [note["noise"] for note in notes] == [0.5, 2.0, 0.5, 2.0]
    env = dataset.recover_environment()
    assert env.spec.max_episode_steps == 150
    switches = 0
    for episode, note in zip(dataset, notes, strict=True):
        assert episode.observations["observation"].shape == (151, 4)
        assert not episode.terminations.any()
        assert episode.truncations.tolist() == [False] * 149 + [True]
        switches += (np.diff(episode.observations["desired_goal"], axis=0) != 0).any(1).sum()
        observation, _ = env.reset(seed=note["seed"])
        for t, action in enumerate(episode.actions):
            np.testing.assert_array_equal(episode.observations["observation"][t], observation["observation"])
            np.testing.assert_array_equal(episode.observations["desired_goal"][t], observation["desired_goal"])
            observation, reward, *_ = env.step(action)
            assert reward == episode.rewards[t]
        np.testing.assert_array_equal(episode.observations["achieved_goal"][-1], observation["achieved_goal"])
    assert switches > 0


def test_same_arguments_same_bytes_other_seed_other_data(root):
    def data_of(name, seed):
        folder = collect_dataset("Pendulum-v1", name, episodes=3, policy="random", seed=seed, max_episode_steps=20)
        return (folder / "data" / "main_data.hdf5").read_bytes()

    assert data_of("first-v0", 5) == data_of("second-v0", 5)
    assert data_of("third-v0", 6) != data_of("fourth-v0", 5)


def test_neighbouring_seeds_share_no_episode():
    seeds = {episode_seed(seed, episode) for seed in range(50) for episode in range(200)}
    assert len(seeds) == 50 * 200


def test_noise_has_the_given_deviation_and_actions_stay_in_bounds():
    env = make_collection_environment("Pendulum-v1", max_episode_steps=2000)  # torque within +-2
    episode = run_episode(env, lambda observation, rng: np.zeros(1), noise=0.3, seed=1)
    assert abs(episode.actions.std() - 0.3) < 0.02
    episode = run_episode(env, lambda observation, rng: np.zeros(1), noise=30.0, seed=1)
    assert np.abs(episode.actions).max() == 2.0
    held = run_episode(env, lambda observation, rng: np.zeros(1), noise=0.3, noise_correlation=0.9, seed=1)
    assert np.corrcoef(held.actions[1:, 0], held.actions[:-1, 0])[0, 1] > 0.85
    quiet = run_episode(env, lambda observation, rng: np.full(1, 0.25), seed=1)
    assert (quiet.actions == 0.25).all()
    assert quiet.actions.dtype == np.float32


def test_policy_by_name_with_discrete_actions_and_terminals(root, policy_module):
    collect_dataset("CartPole-v1", "balanced-v0", steps=100, policy="my_policies:balance")
    dataset = minari.load_dataset("balanced-v0")
    episodes = list(dataset)
    lengths = [len(episode) for episode in episodes]
    assert sum(lengths) >= 100 > sum(lengths[:-1])
    for episode in episodes:
        assert episode.actions.dtype.kind == "i"
        assert episode.terminations[-1] or episode.truncations[-1]
        assert not episode.terminations[:-1].any()
        assert len(episode.observations) == len(episode) + 1
    assert dataset.storage.metadata["algorithm_name"] == "my_policies:balance"


def test_reference_scores_come_from_the_table_or_the_caller(root):
    collect_dataset("Hopper-v5", "hopper-v0", episodes=1, max_episode_steps=5)
    assert minari.load_dataset("hopper-v0").storage.metadata["ref_max_score"] == 3234.3
    reference = ReferenceScores(-1500.0, -150.0, source="test")
    collect_dataset("Pendulum-v1", "pendulum-v0", episodes=1, max_episode_steps=5, reference=reference)
    metadata = minari.load_dataset("pendulum-v0").storage.metadata
    assert (metadata["ref_min_score"], metadata["ref_max_score"]) == (-1500.0, -150.0)


def test_interrupt_leaves_nothing_behind(root):
    steps = 0

    def stop(observation, rng):
        nonlocal steps
        steps += 1
        if steps == 30:
            raise KeyboardInterrupt
        return np.zeros(1)

    with pytest.raises(KeyboardInterrupt):
        collect_dataset("Pendulum-v1", "space/half-v0", episodes=5, policy=stop, max_episode_steps=20)
    assert list(root.iterdir()) == []
    assert minari.list_local_datasets() == {}


def test_existing_id_is_refused_before_anything_is_collected(root):
    collect_dataset("Pendulum-v1", "space/taken-v0", episodes=1, max_episode_steps=5)
    before = (root / "space" / "taken-v0" / "data" / "main_data.hdf5").read_bytes()

    def never(observation, rng):
        raise AssertionError("collected although the id is taken")

    with pytest.raises(DataError, match="'space/taken-v0' exists already"):
        collect_dataset("Pendulum-v1", "space/taken-v0", episodes=1, policy=never)
    assert (root / "space" / "taken-v0" / "data" / "main_data.hdf5").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"dataset_id": "no-version"}, "is not a Minari id"),
        ({"dataset_id": "x/short-v0"}, "is not a Minari id"),
        ({"env_id": "Nowhere-v0"}, "'Nowhere-v0' is not registered"),
        ({"env_id": "no_such_module:Env-v0"}, "no_such_module"),
        ({"env_kwargs": {"gravitas": 1}}, "does not take the options"),
        ({"episodes": 0}, "how much to collect"),
        ({"steps": 10}, "either episodes or steps"),
        ({"policy": "best"}, "random, waypoint or module:function"),
        ({"policy": "no_such_module:act"}, "cannot be imported"),
        ({"policy": "math:no_such_function"}, "no function 'no_such_function'"),
        ({"policy": "waypoint"}, "needs a PointMaze environment"),
        ({"noise": [-1.0]}, "0 or more"),
        ({"noise": [0.5]}, "random policy takes no noise"),
        ({"env_id": "CartPole-v1", "policy": "math:cos", "noise": [0.5]}, "Box actions only"),
        ({"noise": [0.5], "noise_correlation": 1.0}, "below 1, not"),
        ({"noise_correlation": 0.5}, "needs noise"),
        ({"action_repeat": 0}, "at least 1, not 0"),
        ({"env_id": "Blackjack-v1"}, "Tuple"),
    ],
)
def test_bad_arguments_get_one_sentence_and_leave_nothing(root, arguments, sentence):
    usual = {"env_id": "Pendulum-v1", "dataset_id": "bad-v0", "episodes": 1, "max_episode_steps": 5}
    with pytest.raises((DataError, ConfigError), match=sentence):
        collect_dataset(**(usual | arguments))
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("broken", r"my_policies:broken failed at step 0 of the episode .* ZeroDivisionError.*my_policies.py, line 6"),
        ("absurd", r"the action 7 is not in Discrete\(2\)"),
    ],
)
def test_errors_in_a_policy_name_it(root, policy_module, name, sentence):
    with pytest.raises(DataError, match=sentence):
        collect_dataset("CartPole-v1", "broken-v0", episodes=1, policy=f"my_policies:{name}")
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("action", [np.zeros(2), np.array([np.nan]), [[0.0]]])
def test_box_actions_of_the_wrong_shape_or_not_finite_are_refused(action):
    env = make_collection_environment("Pendulum-v1")
    with pytest.raises(DataError, match=r"not a finite array of shape \(1,\)"):
        run_episode(env, lambda observation, rng: action)


def test_random_policy_fills_the_action_space():
    env = gym.make("Pendulum-v1")
    policy, rng = make_policy("random", env), np.random.default_rng(0)
    actions = np.array([policy(None, rng) for _ in range(500)])
    assert actions.min() < -1.8
    assert actions.max() > 1.8
