import dataclasses

import gymnasium
import numpy as np
import pytest
import torch

from trajplan.models.termination import HEALTHY, NEVER, termination_rule

KEPT = {"exclude_current_positions_from_observation": False}
CASES = [
    ("Hopper-v5", {}),
    ("Hopper-v5", KEPT),
    ("Hopper-v5", {"healthy_z_range": (1.0, 1.3), "healthy_angle_range": (-0.05, 0.1)}),
    ("Hopper-v5", {"healthy_state_range": (-3.0, 3.0), "healthy_angle_range": (-9, 9), "healthy_z_range": (0, 9)}),
    ("Hopper-v5", {"terminate_when_unhealthy": False}),
    ("Walker2d-v5", {}),
    ("Walker2d-v5", KEPT),
    ("Walker2d-v5", {"healthy_z_range": (1.1, 1.3)}),
    ("Ant-v5", {"include_cfrc_ext_in_observation": False}),
    ("Ant-v5", {"healthy_z_range": (0.5, 0.8)} | KEPT),
    ("Humanoid-v5", {}),
    ("HalfCheetah-v5", {}),
    ("InvertedPendulum-v5", {}),
    ("Pendulum-v1", {}),
    ("MountainCarContinuous-v0", {}),
    ("MountainCarContinuous-v0", {"goal_velocity": 0.02}),
]


def steps(env_id, settings, count):
    """Observations after steps of an environment, and whether it said that it ended; it is stepped on regardless."""
    env = gymnasium.make(env_id, disable_env_checker=True, **settings).unwrapped
    env.action_space.seed(0)
    observations, ends = [], []
    observation, _ = env.reset(seed=0)
    for number in range(count):
        # Full throttle along the way it rolls brings the car up.
        climbs = env_id.startswith("MountainCar") and observation[1] != 0
        action = np.sign(observation[1:]) if climbs else env.action_space.sample()
        observation, _, terminated, _, _ = env.step(action)
        observations.append(observation)
        ends.append(terminated)
        if number % 150 == 149:
            observation, _ = env.reset(seed=number)
    env.close()
    return np.array(observations), np.array(ends)


@pytest.mark.parametrize(("env_id", "settings"), CASES, ids=str)
def test_rules_agree_with_the_environments(env_id, settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warnings there
    spec = dataclasses.replace(gymnasium.spec(env_id), kwargs=gymnasium.spec(env_id).kwargs | settings)
    observations, ends = steps(env_id, settings, 300)
    rule = termination_rule(spec)
    said = rule(torch.from_numpy(observations))
    assert np.array_equal(said.numpy(), ends)
    assert torch.equal(rule(torch.from_numpy(observations).float()[:, None]), said[:, None])
    name = env_id.split("-")[0]
    never = name in NEVER or settings.get("terminate_when_unhealthy") is False
    assert ends.any() != never
    assert not ends.all()


@pytest.mark.parametrize("name", [*HEALTHY, "InvertedPendulum"])
def test_states_that_are_no_numbers_end_an_episode(name):
    observations = torch.zeros(3, 12)
    observations[:, 0] = 1.0 if name in ("Walker2d", "Hopper") else 0.9 if name == "Ant" else 1.5
    observations[1, 5], observations[2, 0] = torch.nan, torch.inf
    rule = termination_rule(gymnasium.spec(f"{name}-v5"))
    assert rule(observations).tolist() == [False, True, True]


def test_low_values_count_as_much_as_high_ones():
    rule = termination_rule(gymnasium.spec("Hopper-v5"))
    observations = torch.zeros(4, 11)
    observations[:, 0] = 1.2
    observations[1, 4], observations[2, 4], observations[3, 1] = -101, 101, -0.21
    assert rule(observations).tolist() == [False, True, True, True]


def test_no_rule_for_unknown_or_wrapped_environments():
    spec = gymnasium.spec("Hopper-v5")
    wrapper = gymnasium.envs.registration.WrapperSpec("N", "gymnasium.wrappers:NormalizeObservation", {})
    assert termination_rule(None) is None
    assert termination_rule(gymnasium.spec("Acrobot-v1")) is None
    assert termination_rule(dataclasses.replace(spec, additional_wrappers=(wrapper,))) is None
    assert termination_rule(spec) is not None
