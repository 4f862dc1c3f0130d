import dataclasses

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from trajplan.errors import ConfigError
from trajplan.evaluation.policy import Controller, RandomPolicy
from trajplan.evaluation.rollout import evaluate


def draw(policy, seeds, rows, steps=5):
    policy.reset(seeds, rows)
    return np.stack([policy.act(None, None, rows) for _ in range(steps)], axis=1)


def test_random_actions_depend_on_the_episode_seed_alone(pendulum):
    together = draw(RandomPolicy(pendulum), [3, 4, 5], [0, 1, 2])
    alone = draw(RandomPolicy(pendulum), [4], [7])
    assert np.array_equal(together[1], alone[0])
    assert not np.array_equal(together[0], together[1])
    assert not np.array_equal(draw(RandomPolicy(pendulum, seed=1), [4], [7]), alone)


def test_random_actions_cover_the_action_space(cartpole):
    discrete = dataclasses.replace(cartpole, action_space=spaces.Discrete(3, start=5))
    actions = draw(RandomPolicy(discrete), [0], [0], steps=60)
    assert set(actions.ravel()) == {0.0, 1.0, 2.0}
    assert discrete.unflatten_action(actions[0, 0]) in discrete.action_space
    box = dataclasses.replace(cartpole, action_space=spaces.Box(np.float32([[-2, 0]]), np.float32([[-1, 9]])))
    actions = draw(RandomPolicy(box), [0], [0], steps=300)[0]
    assert actions.shape == (300, 2)
    assert np.allclose(actions.mean(axis=0), [-1.5, 4.5], atol=0.5)
    assert (actions >= [-2, 0]).all()
    assert (actions <= [-1, 9]).all()


def test_five_lines_give_the_episode_of_a_batched_evaluation(cartpole, memory_policy):
    controller = Controller(memory_policy(cartpole))
    env = gymnasium.make("CartPole-v1")
    returns = []
    for seed in (0, 1, 2):
        observation, _ = env.reset(seed=seed)
        controller.reset(seed=seed)
        reward, done, total = None, False, 0.0
        while not done:
            observation, reward, terminated, truncated, _ = env.step(controller.act(observation, reward))
            done = terminated or truncated
            total += reward
        returns.append(total)
    batched = evaluate(memory_policy(cartpole), cartpole.make_env, episodes=3, num_envs=3).episodes
    assert returns == [episode.total_reward for episode in batched]


def test_controller_takes_dictionaries_and_gives_native_actions(point_maze):
    env = point_maze.make_env()
    seen = []
    policy = RandomPolicy(point_maze)
    act = policy.act
    policy.act = lambda observations, rewards, rows: seen.append(observations) or act(observations, rewards, rows)
    controller = Controller(policy)
    observation, _ = env.reset(seed=0)
    controller.reset(seed=0)
    action = controller.act(observation)
    assert action in env.action_space
    parts = [observation[key] for key in sorted(observation)]
    assert np.array_equal(seen[0], np.concatenate(parts).astype(np.float32)[None])
    assert controller.plan is None
    assert controller.info is point_maze


def test_controller_says_how_it_is_used(cartpole, memory_policy):
    controller = Controller(memory_policy(cartpole))
    with pytest.raises(ConfigError, match=r"call controller\.reset"):
        controller.act(np.zeros(4))
    controller.reset()
    assert controller.act(np.zeros(4)) in (0, 1)
    with pytest.raises(ConfigError, match="reward of the last action"):
        controller.act(np.zeros(4))
    controller.reset()
    controller.act(np.zeros(4))
    controller.act(np.zeros(4), 0.0)
