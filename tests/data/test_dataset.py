import dataclasses

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from trajplan.data.dataset import OfflineDataset
from trajplan.data.scores import ReferenceScores
from trajplan.errors import ConfigError, DataError


@pytest.fixture
def dataset(episodes):
    return OfflineDataset.from_episodes(episodes)


def test_flat_layout(dataset, episodes):
    assert (dataset.num_transitions, dataset.num_episodes) == (21, 4)
    assert (dataset.observation_dim, dataset.action_dim) == (3, 2)
    np.testing.assert_array_equal(dataset.offsets, [0, 5, 6, 18, 21])
    np.testing.assert_array_equal(dataset.lengths, [5, 1, 12, 3])
    for index, episode in enumerate(episodes):
        begin, end = dataset.offsets[index : index + 2]
        np.testing.assert_array_equal(dataset.observations[begin + index : end + index + 1], episode["observations"])
        for name in ("actions", "rewards", "terminations", "truncations"):
            np.testing.assert_array_equal(getattr(dataset, name)[begin:end], episode[name])
    np.testing.assert_allclose(dataset.returns, [e["rewards"].sum(dtype=np.float64) for e in episodes])
    assert dataset.info.mean_return == pytest.approx(dataset.returns.mean())


def test_terminals_and_timeouts_stay_apart(dataset):
    last = dataset.offsets[1:] - 1
    np.testing.assert_array_equal(dataset.terminations[last], [True, False, True, False])
    np.testing.assert_array_equal(dataset.truncations[last], [False, True, True, False])


def test_penalty_replaces_the_reward_at_real_ends_only(dataset):
    penalised = dataset.rewards_with_penalty(-100.0)
    np.testing.assert_array_equal(np.flatnonzero(penalised != dataset.rewards), [4, 17])
    np.testing.assert_array_equal(penalised[[4, 17]], [-100.0, -100.0])
    assert penalised.dtype == np.float32
    np.testing.assert_array_equal(dataset.rewards_with_penalty(None), dataset.rewards)
    # What is reported is never penalised.
    assert dataset.returns[0] == pytest.approx(float(dataset.rewards[:5].sum()))


@pytest.mark.parametrize("penalty", [None, -100.0])
@pytest.mark.parametrize("discount", [0.9, 1.0])
def test_returns_to_go_with_and_without_penalty(dataset, discount, penalty):
    expected = []
    for begin, end in zip(dataset.offsets[:-1], dataset.offsets[1:], strict=True):
        rewards = [float(r) for r in dataset.rewards[begin:end]]
        if penalty is not None and dataset.terminations[end - 1]:
            rewards[-1] = penalty
        for t in range(end - begin):
            expected.append(sum(discount ** (i - t - 1) * rewards[i] for i in range(t + 1, end - begin)))
    result = dataset.returns_to_go(discount, penalty)
    np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-12)
    # Its own reward is left out, so r + discount R is the value of the step.
    value = dataset.rewards_with_penalty(penalty) + discount * result
    np.testing.assert_allclose(value[1:5], result[:4], rtol=1e-6)


def test_joined_columns(dataset):
    joined = dataset.joined(0.9, -50.0)
    assert joined.shape == (21, 3 + 2 + 2)
    assert joined.dtype == np.float32
    for row in range(21):
        episode = int(np.searchsorted(dataset.offsets, row, side="right")) - 1
        np.testing.assert_array_equal(joined[row, :3], dataset.observations[row + episode])
    np.testing.assert_array_equal(joined[:, 3:5], dataset.actions)
    np.testing.assert_array_equal(joined[:, 5], dataset.rewards_with_penalty(-50.0))
    np.testing.assert_array_equal(joined[:, 6], dataset.returns_to_go(0.9, -50.0).astype(np.float32))


def test_the_discount_reaches_the_return_to_go(dataset):
    assert not np.array_equal(dataset.joined(0.5)[:, -1], dataset.joined(0.99)[:, -1])


@pytest.mark.parametrize("block", [1, 2**20])
def test_joined_in_pieces(dataset, monkeypatch, block):
    monkeypatch.setattr("trajplan.data.returns._BLOCK", block)
    whole = dataset.joined()
    for start in range(22):
        for stop in range(start, 22):
            np.testing.assert_array_equal(dataset.joined(rows=slice(start, stop)), whole[start:stop])
    with pytest.raises(ConfigError, match="step"):
        dataset.joined(rows=slice(0, 10, 2))


def test_split_by_episode(dataset):
    training, held_out = dataset.split(0.25, seed=3)
    assert sorted([*training, *held_out]) == [0, 1, 2, 3]
    assert len(held_out) == 1
    again = dataset.split(0.25, seed=3)
    np.testing.assert_array_equal(training, again[0])
    assert len({int(dataset.split(0.25, seed)[1][0]) for seed in range(20)}) > 1
    # However small or large the fraction, neither side is empty.
    assert len(dataset.split(0.001, seed=0)[1]) == 1
    assert len(dataset.split(0.999, seed=0)[0]) == 1


def test_split_refuses(dataset, episodes):
    for fraction in (0.0, 1.0, -0.5, float("nan")):
        with pytest.raises(ConfigError, match="fraction"):
            dataset.split(fraction, seed=0)
    with pytest.raises(DataError, match="one episode"):
        OfflineDataset.from_episodes(episodes[:1]).split(0.5, seed=0)


def test_statistics():
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(1001, 3)) * [1e-2, 5.0, 0.0] + [1e3, -2.0, 7.1]
    flags = np.zeros(1000, bool)
    episode = {
        "observations": observations,
        "actions": np.zeros((1000, 1)),
        "rewards": np.zeros(1000),
        "terminations": flags,
        "truncations": flags,
    }
    dataset = OfflineDataset.from_episodes([episode])
    statistics = dataset.statistics()
    stored = dataset.observations.astype(np.float64)
    np.testing.assert_allclose(statistics.mean, stored.mean(0), rtol=1e-6)
    np.testing.assert_allclose(statistics.std[:2], stored.std(0)[:2], rtol=1e-5)
    # Dividing by a constant dimension's deviation must be harmless.
    assert statistics.std[2] == 1.0


def test_from_episodes_with_spaces_and_objects(episodes):
    class Recorded:
        def __init__(self, values):
            self.__dict__.update(values)

    reference = ReferenceScores(0.0, 10.0, "mine")
    space = spaces.Box(-0.5, 0.5, (2,), np.float32)
    dataset = OfflineDataset.from_episodes(
        (Recorded(e) for e in episodes), id="mine", action_space=space, reference=reference
    )
    # Recorded actions beyond the bounds stay as they are; the environment gets them clipped.
    assert np.abs(dataset.actions).max() > 0.5
    assert np.abs(dataset.info.unflatten_action(dataset.actions)).max() == 0.5
    assert dataset.info.id == "mine"
    np.testing.assert_allclose(dataset.info.normalized_score([0.0, 5.0]), [0.0, 50.0])


def test_from_episodes_discrete():
    flags = np.zeros(4, bool)
    episode = {
        "observations": np.arange(5.0)[:, None],
        "actions": np.array([3, 4, 5, 3]),
        "rewards": np.ones(4),
        "terminations": flags,
        "truncations": flags,
    }
    dataset = OfflineDataset.from_episodes([episode], action_space=spaces.Discrete(3, start=3))
    np.testing.assert_array_equal(dataset.actions, [[0], [1], [2], [0]])
    assert dataset.info.num_actions == 3
    with pytest.raises(DataError, match="Discrete"):
        OfflineDataset.from_episodes([episode])


def test_from_episodes_dict_observations():
    flags = np.zeros(2, bool)
    goal, position = np.full((3, 2), 9.0), np.arange(6.0).reshape(3, 2)
    episode = {
        "observations": {"position": position, "goal": goal},
        "actions": np.zeros((2, 1)),
        "rewards": np.ones(2),
        "terminations": flags,
        "truncations": flags,
    }
    dataset = OfflineDataset.from_episodes([episode])
    np.testing.assert_array_equal(dataset.observations, np.concatenate([goal, position], axis=1))
    assert [part.name for part in dataset.info.observation_layout] == ["goal", "position"]


def test_no_episodes():
    with pytest.raises(DataError, match="no episodes"):
        OfflineDataset.from_episodes([])


def _pendulum(length=3, observations=3, actions=1):
    return {
        "observations": np.zeros((length + 1, observations)),
        "actions": np.full((length, actions), 0.5),
        "rewards": np.zeros(length),
        "terminations": np.zeros(length, bool),
        "truncations": np.zeros(length, bool),
    }


@pytest.mark.parametrize("kind", ["id", "specification", "environment"])
def test_from_episodes_takes_the_environments_spaces(kind):
    env = gymnasium.make("Pendulum-v1", g=9.81)
    given = {"id": "Pendulum-v1", "specification": env.spec, "environment": env}[kind]
    info = OfflineDataset.from_episodes([_pendulum()], env_spec=given).info
    assert info.action_space == env.action_space
    assert info.observation_space == env.observation_space
    assert info.env_spec.id == "Pendulum-v1"
    assert info.env_spec.kwargs == ({} if kind == "id" else {"g": 9.81})
    assert info.make_env().action_space == env.action_space
    env.reset(seed=0)  # still open where it was the user's own


def test_the_environment_is_closed_after_its_spaces_are_read(monkeypatch):
    closed = []
    monkeypatch.setattr("gymnasium.envs.classic_control.PendulumEnv.close", lambda self: closed.append(self))
    OfflineDataset.from_episodes([_pendulum()], env_spec="Pendulum-v1")
    assert len(closed) == 1


def test_spaces_that_are_given_win_over_the_environments(monkeypatch):
    narrow = spaces.Box(-1.0, 1.0, (1,), np.float32)
    info = OfflineDataset.from_episodes([_pendulum()], action_space=narrow, env_spec="Pendulum-v1").info
    assert info.action_space == narrow
    assert info.observation_space == gymnasium.make("Pendulum-v1").observation_space
    # With both there is no need to make it, which may not be possible here.
    monkeypatch.setattr("trajplan.data.sources.arrays.make_environment", lambda spec: pytest.fail("made"))
    wide = spaces.Box(-9.0, 9.0, (3,), np.float32)
    OfflineDataset.from_episodes([_pendulum()], observation_space=wide, action_space=narrow, env_spec="Pendulum-v1")


def test_the_environments_actions_may_be_discrete():
    episode = {**_pendulum(observations=4), "actions": np.array([0, 1, 1])}
    dataset = OfflineDataset.from_episodes([episode], env_spec="CartPole-v1")
    assert dataset.info.num_actions == 2
    np.testing.assert_array_equal(dataset.actions, [[0], [1], [1]])


@pytest.mark.parametrize(
    ("episode", "parts"),
    [
        (_pendulum(actions=2), ("episode 1", "actions has shape (3, 2)", "(3, 1)", "Pendulum-v1")),
        (_pendulum(observations=4), ("episode 1", "observation has shape (4, 4)", "(3,)", "Pendulum-v1")),
    ],
)
def test_data_that_do_not_fit_the_environment(episode, parts):
    with pytest.raises(DataError) as error:
        OfflineDataset.from_episodes([_pendulum(), episode], id="mine", env_spec="Pendulum-v1")
    for part in ("dataset 'mine'", *parts):
        assert part in str(error.value)


def test_environments_that_cannot_be_made():
    with pytest.raises(DataError, match="Nowhere-v0"):
        OfflineDataset.from_episodes([_pendulum()], env_spec="Nowhere-v0")
    with pytest.raises(DataError, match="not PendulumEnv") as error:
        OfflineDataset.from_episodes([_pendulum()], env_spec=type("PendulumEnv", (), {})())
    unknown = gymnasium.envs.registration.EnvSpec("Unknown-v0", entry_point="nowhere:Env")
    with pytest.raises(DataError, match=r"give observation_space and action_space.*Unknown-v0") as error:
        OfflineDataset.from_episodes([_pendulum()], env_spec=unknown)
    assert "\n" not in str(error.value)
    options = dataclasses.replace(gymnasium.spec("Pendulum-v1"), kwargs={"gravity": 9.81})
    with pytest.raises(DataError, match=r"Pendulum-v1.*gravity"):
        OfflineDataset.from_episodes([_pendulum()], env_spec=options)
