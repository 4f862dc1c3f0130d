import gymnasium
import numpy as np
import pytest

from trajplan.data.collection.collect import collect_dataset
from trajplan.data.collection.repeat import ActionRepeat
from trajplan.data.dataset import OfflineDataset
from trajplan.data.environment import make_environment, spec_from_dict, spec_to_dict


def test_an_action_is_held_and_earns_the_sum_of_the_rewards():
    plain, repeated = gymnasium.make("Pendulum-v1"), ActionRepeat(gymnasium.make("Pendulum-v1"), 4)
    plain.reset(seed=3), repeated.reset(seed=3)
    for action in (np.array([1.5], np.float32), np.array([-0.5], np.float32)):
        singles = [plain.step(action) for _ in range(4)]
        observation, reward, terminated, truncated, _ = repeated.step(action)
        assert np.array_equal(observation, singles[-1][0])
        assert reward == pytest.approx(sum(float(single[1]) for single in singles))
        assert not terminated
        assert not truncated


def test_the_end_of_an_episode_ends_the_hold_and_nothing_steps_past_it():
    env = ActionRepeat(gymnasium.make("CartPole-v1"), 50)
    env.reset(seed=0)
    _, reward, terminated, truncated, _ = env.step(0)
    assert terminated
    assert not truncated
    assert 1 <= reward < 50  # CartPole pays 1 a step, and falls long before the 50th


def test_the_time_limit_counts_the_environments_own_steps():
    env = ActionRepeat(gymnasium.make("Pendulum-v1", max_episode_steps=10), 4)
    env.reset(seed=0)
    ends = [env.step(np.zeros(1, np.float32))[3] for _ in range(3)]
    assert ends == [False, False, True]


class Goal(gymnasium.Wrapper):
    """Succeeds in its third step alone, as a maze does whose goal moves on once it is reached."""

    def reset(self, **kwargs):
        self.steps = 0
        return self.env.reset(**kwargs)

    def step(self, action):
        self.steps += 1
        *step, info = self.env.step(action)
        return *step, {**info, "success": self.steps == 3, "steps": self.steps}


def test_a_success_at_any_of_the_steps_is_one():
    env = ActionRepeat(Goal(gymnasium.make("Pendulum-v1")), 5)
    env.reset(seed=0)
    infos = [env.step(np.zeros(1, np.float32))[4] for _ in range(2)]
    assert [(info["success"], info["steps"]) for info in infos] == [(True, 5), (False, 10)]
    bare = ActionRepeat(gymnasium.make("Pendulum-v1"), 5)
    bare.reset(seed=0)
    assert "success" not in bare.step(np.zeros(1, np.float32))[4]


def test_the_specification_carries_the_wrapper_and_brings_it_back():
    env = ActionRepeat(gymnasium.make("Pendulum-v1"), 5)
    assert env.metadata["render_fps"] == gymnasium.make("Pendulum-v1").metadata["render_fps"] / 5
    again = make_environment(spec_from_dict(spec_to_dict(env.spec)))
    assert isinstance(again, ActionRepeat)
    assert again.repeat == 5


def test_a_dataset_collected_with_a_repeat_is_evaluated_with_it(data_root):
    collect_dataset("Pendulum-v1", "pendulum/held-v0", episodes=2, action_repeat=8, seed=1)
    dataset = OfflineDataset.from_minari("pendulum/held-v0")
    assert dataset.lengths.tolist() == [25, 25]
    env = dataset.info.make_env()
    env.reset(seed=0)
    steps = 0
    while not env.step(np.zeros(1, np.float32))[3]:
        steps += 1
    assert steps + 1 == 25
