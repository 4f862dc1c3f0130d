import gymnasium
import numpy as np
import pytest
import torch

from trajplan.errors import ConfigError, DataError
from trajplan.evaluation.policy import RandomPolicy
from trajplan.evaluation.rollout import Episode, evaluate


def plain_loop(policy, info, number, seed):
    """One episode as anyone would write it, in an environment of its own."""
    env = info.make_env()
    observation, _ = env.reset(seed=seed + number)
    policy.reset([seed + number], [0])
    reward, total, length, terminated, truncated = 0.0, 0.0, 0, False, False
    while not (terminated or truncated):
        action = policy.act(info.flatten_observation(observation)[None], np.array([reward], np.float32), [0])[0]
        observation, reward, terminated, truncated, _ = env.step(info.unflatten_action(action))
        total, length = total + float(reward), length + 1
    return Episode(number, seed + number, total, length, bool(terminated), bool(truncated))


@pytest.mark.parametrize("num_envs", [1, 2, 3, 7, 20])
def test_results_do_not_depend_on_the_number_of_environments(cartpole, memory_policy, num_envs):
    policy = memory_policy(cartpole)
    expected = [plain_loop(memory_policy(cartpole), cartpole, number, 100) for number in range(7)]
    found = evaluate(policy, cartpole.make_env, episodes=7, num_envs=num_envs, seed=100)
    assert found.episodes == expected
    assert len({episode.length for episode in expected}) > 3  # or the test would show little


def test_quota_is_fixed_beforehand_and_finished_environments_drop_out(cartpole, memory_policy):
    policy = memory_policy(cartpole)
    found = evaluate(policy, cartpole.make_env, episodes=8, num_envs=3, seed=5)
    turns = {row: [seed for r, seed in policy.resets if r == row] for row in range(3)}
    assert turns == {0: [5, 8, 11], 1: [6, 9, 12], 2: [7, 10]}
    busy = [sum(found.episodes[seed - 5].length for seed in seeds) for seeds in turns.values()]
    assert [sum(row in rows for rows in policy.calls) for row in range(3)] == busy
    assert found.plan_rows.tolist() == [len(rows) for rows in policy.calls]
    assert len(found.plan_seconds) == max(busy)


def test_box_actions_are_clipped_only_for_the_environment(pendulum, memory_policy):
    # Pendulum punishes torque u by 0.001 u^2, so the reward tells which torque came through.
    policy = memory_policy(pendulum)
    policy.act = lambda observations, rewards, rows: np.full((len(rows), 1), 50.0, np.float32)
    seen = []
    evaluate(policy, pendulum.make_env, episodes=1, observers=[seen.append])
    assert len(seen) == 201
    assert all(moment.action == 50.0 for moment in seen[:-1])
    cosine, sine, speed = seen[0].observation
    angle = np.arctan2(sine, cosine)
    assert seen[1].reward == pytest.approx(-(angle**2 + 0.1 * speed**2 + 0.001 * 2.0**2), rel=1e-5)


def test_observers_see_every_state_once(cartpole, memory_policy):
    seen = []
    found = evaluate(memory_policy(cartpole), cartpole.make_env, episodes=4, num_envs=2, observers=[seen.append])
    for episode in found.episodes:
        moments = [moment for moment in seen if moment.episode == episode.episode]
        assert [moment.step for moment in moments] == list(range(episode.length + 1))
        assert [moment.action is None for moment in moments] == [False] * episode.length + [True]
        assert sum(moment.reward for moment in moments) == episode.total_reward


def test_resumed_run_equals_the_unbroken_one(cartpole, memory_policy):
    whole = evaluate(memory_policy(cartpole), cartpole.make_env, episodes=9, num_envs=4).episodes
    kept, policy = [], memory_policy(cartpole)
    interrupt_after(policy, calls=40)
    with pytest.raises(KeyboardInterrupt):
        evaluate(policy, cartpole.make_env, episodes=9, num_envs=4, on_episode=kept.append)
    assert 0 < len(kept) < 9
    resumed = evaluate(memory_policy(cartpole), cartpole.make_env, episodes=9, num_envs=2, finished=kept)
    assert resumed.episodes == whole
    assert resumed.plan_rows.sum() == sum(e.length for e in whole) - sum(e.length for e in kept)


def interrupt_after(policy, calls):
    act = policy.act

    def interrupted(observations, rewards, rows):
        if len(policy.calls) == calls:
            raise KeyboardInterrupt
        return act(observations, rewards, rows)

    policy.act = interrupted


def test_environments_are_closed_when_interrupted(cartpole, memory_policy):
    closed = []

    class Closing(gymnasium.Wrapper):
        def close(self):
            closed.append(self)

    policy = memory_policy(cartpole)
    interrupt_after(policy, calls=3)
    with pytest.raises(KeyboardInterrupt):
        evaluate(policy, lambda: Closing(cartpole.make_env()), episodes=5, num_envs=3)
    assert len(closed) == 3


def test_more_episodes_can_be_asked_for_later(cartpole, memory_policy):
    first = evaluate(memory_policy(cartpole), cartpole.make_env, episodes=3).episodes
    more = evaluate(memory_policy(cartpole), cartpole.make_env, episodes=6, finished=first).episodes
    assert more == evaluate(memory_policy(cartpole), cartpole.make_env, episodes=6).episodes
    fewer = evaluate(memory_policy(cartpole), cartpole.make_env, episodes=2, finished=more)
    assert fewer.episodes == first[:2]
    assert len(fewer.plan_seconds) == 0


def test_nan_reward_names_episode_and_step(cartpole):
    class Broken(gymnasium.Wrapper):
        def step(self, action):
            observation, _, terminated, truncated, info = super().step(action)
            return observation, np.nan, terminated, truncated, info

    with pytest.raises(DataError, match=r"reward nan in episode 0 at step 1"):
        evaluate(RandomPolicy(cartpole), lambda: Broken(cartpole.make_env()), episodes=1)


def test_success_is_kept_from_any_step(cartpole):
    class Successful(gymnasium.Wrapper):
        def step(self, action):
            self.count = getattr(self, "count", 0) + 1
            return (*super().step(action)[:4], {"success": self.count == 3})

    found = evaluate(RandomPolicy(cartpole), lambda: Successful(cartpole.make_env()), episodes=2)
    assert [episode.success for episode in found.episodes] == [True, False]


def test_policy_keeps_its_mode(cartpole, memory_policy):
    policy = memory_policy(cartpole)
    policy.model = torch.nn.Dropout()
    for mode in (True, False):
        policy.model.train(mode)
        evaluate(policy, cartpole.make_env, episodes=1)
        assert policy.model.training is mode


@pytest.mark.parametrize("counts", [{"episodes": 0}, {"num_envs": 0}, {"seed": -1}])
def test_impossible_counts_are_refused(cartpole, counts):
    with pytest.raises(ConfigError, match="1 or more"):
        evaluate(RandomPolicy(cartpole), cartpole.make_env, **counts)


def test_bundled_simulators_forget_the_episode_before(point_maze):
    # Slots are used again, so an episode must come out the same in a fresh environment and in a used one.
    policy = RandomPolicy(point_maze)
    many = evaluate(policy, point_maze.make_env, episodes=4, num_envs=4).episodes
    assert evaluate(policy, point_maze.make_env, episodes=4, num_envs=1).episodes == many
