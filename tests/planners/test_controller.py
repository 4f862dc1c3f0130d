from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch

from trajplan.data.dataset import OfflineDataset
from trajplan.errors import ConfigError
from trajplan.evaluation.policy import Controller
from trajplan.models.trajectory_transformer import TrajectoryTransformer, TrajectoryTransformerConfig
from trajplan.planners.beam_search import BeamSearch, BeamSearchConfig
from trajplan.planners.controller import PlanningPolicy
from trajplan.tokenizers.fit import fit_tokenizer

S, A, V, WINDOW = 3, 2, 9, 6
J = S + A + 2


@pytest.fixture(scope="module")
def parts():
    rng = np.random.default_rng(0)
    episodes = [
        {
            "observations": rng.uniform(-1, 1, (21, S)),
            "actions": rng.uniform(-1, 1, (20, A)),
            "rewards": rng.uniform(-1, 1, 20),
            "terminations": np.zeros(20, bool),
            "truncations": np.arange(20) == 19,
        }
        for _ in range(5)
    ]
    dataset = OfflineDataset.from_episodes(
        episodes,
        observation_space=gym.spaces.Box(-1, 1, (S,)),
        action_space=gym.spaces.Box(-1, 1, (A,)),
    )
    torch.manual_seed(0)
    config = TrajectoryTransformerConfig(
        observation_dim=S, action_dim=A, bins=V, window=WINDOW, n_layer=2, n_head=2, n_embd=16
    )
    config.initializer_range = 0.3
    model = TrajectoryTransformer(config).eval()
    return model, fit_tokenizer("uniform", dataset.joined(), V), dataset.info


def controller(parts, **settings):
    model, tokenizer, info = parts
    config = BeamSearchConfig(**{"horizon": 4, "beam_width": 4, "context": 2} | settings)
    return PlanningPolicy(BeamSearch(model, tokenizer, config), info)


def episode(steps, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (steps, S)).astype(np.float32), rng.uniform(-1, 1, steps)


def before(rewards, t):
    """What the last action earned; nothing at the first step."""
    return rewards[t - 1 : t] if t else np.array([np.nan])


def drive(policy, steps, seed, row=0):
    observations, rewards = episode(steps, seed)
    policy.reset([seed], [row])
    return [policy.act(observations[t : t + 1], before(rewards, t), np.array([row]))[0] for t in range(steps)]


def test_the_context_is_the_last_transitions_as_they_happened(parts):
    policy = controller(parts)
    calls = []
    plan = policy.planner.plan

    def spy(observations, past, generators):
        calls.append((observations, past))
        return plan(observations, past, generators)

    policy.planner.plan = spy
    actions = drive(policy, 5, seed=3)
    observations, rewards = episode(5, 3)
    for step, (observed, past) in enumerate(calls):
        assert observed.numpy() == pytest.approx(observations[step : step + 1])
        happened = [[*observations[t], *actions[t], rewards[t]] for t in range(max(0, step - 2), step)]
        assert past.shape == (1, len(happened), J - 1)
        torch.testing.assert_close(past[0], torch.tensor(np.array(happened), dtype=torch.float32).view(-1, J - 1))


def test_environments_acted_for_together_get_the_actions_they_get_alone(parts):
    alone = [drive(controller(parts), 6, seed) for seed in (1, 2, 3)]
    policy = controller(parts)
    # Slot 2 starts two steps later, so context lengths differ, and slot 1 is done after four steps.
    starts, lengths = {0: 0, 1: 0, 2: 2}, {0: 6, 1: 4, 2: 6}
    courses = {row: episode(6, row + 1) for row in range(3)}
    together = {row: [] for row in range(3)}
    for now in range(8):
        for row in range(3):
            if starts[row] == now:
                policy.reset([row + 1], [row])
        rows = [row for row in range(3) if starts[row] <= now < starts[row] + lengths[row]]
        steps = [now - starts[row] for row in rows]
        observations = np.stack([courses[row][0][t] for row, t in zip(rows, steps, strict=True)])
        rewards = np.array([courses[row][1][t - 1] for row, t in zip(rows, steps, strict=True)])
        for row, action in zip(rows, policy.act(observations, rewards, np.array(rows)), strict=True):
            together[row].append(action)
    for row in range(3):
        np.testing.assert_allclose(together[row], alone[row][: lengths[row]], rtol=1e-6)


def test_replanning_every_few_steps_acts_the_rest_of_the_old_plan(parts):
    policy = controller(parts, replan_every=3)
    policy.reset([0], [0])
    observations, rewards = episode(6)
    plans, actions = [], []
    for t in range(6):
        actions.append(policy.act(observations[t : t + 1], before(rewards, t), np.array([0]))[0])
        plans.append(policy.last_plans[0])
    assert plans[0] is plans[1] is plans[2]
    assert plans[3] is not plans[2]
    np.testing.assert_array_equal(actions[:3], plans[0].actions[0, :3])
    np.testing.assert_array_equal(actions[3:], plans[3].actions[0, :3])


def test_a_reset_forgets_the_episode_and_repeats_its_seed(parts):
    policy = controller(parts)
    first = drive(policy, 4, seed=5)
    np.testing.assert_array_equal(drive(policy, 4, seed=5), first)
    assert not np.array_equal(drive(policy, 4, seed=6), first)


def test_plans_are_kept_for_pictures(parts):
    policy = controller(parts)
    drive(policy, 1, seed=0, row=7)
    plan = policy.last_plans[7]
    assert plan.observations.shape == (4, 4, S)
    assert plan.actions.shape == (4, 4, A)
    assert plan.scores.shape == plan.log_likelihood.shape == (4,)
    assert plan.rewards.shape == plan.returns.shape == plan.alive.shape == (4, 4)
    assert (np.diff(plan.scores) <= 0).all()
    assert (plan.log_likelihood < 0).all()


class GoalBlind:
    """A planner that takes no goals."""

    def __init__(self, search):
        self.search, self.config = search, search.config

    def plan(self, observations, past, generators):
        return self.search.plan(observations, past, generators)


class GoalReader(GoalBlind):
    def __init__(self, search):
        super().__init__(search)
        self.goals = []

    def plan(self, observations, past, generators, goals=None):
        self.goals.append(goals)
        return self.search.plan(observations, past, generators)


def test_goals_reach_the_planner_with_their_episodes(parts):
    model, tokenizer, info = parts
    info = replace(info, goal_columns=(2, 0))
    reader = GoalReader(BeamSearch(model, tokenizer, BeamSearchConfig(horizon=1, beam_width=2, context=1)))
    policy = PlanningPolicy(reader, info)
    policy.reset([0, 1], [0, 1], np.array([[1, 2], [3, 4]]))
    policy.reset([2], [2])
    policy.act(np.zeros((3, S), np.float32), np.zeros(3), np.array([1, 2, 0]))
    assert [None if goals is None else goals.tolist() for goals in reader.goals] == [[[3, 4], [1, 2]], None]

    blind = PlanningPolicy(GoalBlind(reader.search), info)
    blind.reset([0], [0])
    assert blind.act(np.zeros((1, S), np.float32), np.zeros(1), np.array([0])).shape == (1, A)


def test_goals_that_do_not_fit_are_refused(parts):
    model, tokenizer, info = parts
    search = BeamSearch(model, tokenizer, BeamSearchConfig(horizon=1, beam_width=2, context=1))
    with pytest.raises(ConfigError, match="knows no goals"):
        Controller(PlanningPolicy(search, info)).reset(goal=[1.0, 2.0])
    controller = Controller(PlanningPolicy(search, replace(info, goal_columns=(2, 0))))
    with pytest.raises(ConfigError, match="hold 2 numbers"):
        controller.reset(goal=[1.0])
    with pytest.raises(ConfigError, match="finite"):
        controller.reset(goal=[1.0, np.nan])
    controller.reset(goal=[1.0, 2.0])
    assert controller.act(np.zeros(S)).shape == (A,)
