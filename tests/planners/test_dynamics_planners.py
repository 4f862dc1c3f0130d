"""What every planner on a dynamics ensemble owes, through the registry, and what each does on a system that is known.

The system is linear and its cost quadratic, so that the best return is that of a Riccati equation (LQR); the planners
are given the exact system in place of an ensemble.
"""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch
from scipy.linalg import solve_discrete_are

from trajplan.data.dataset import OfflineDataset
from trajplan.errors import ConfigError
from trajplan.models.behaviour import BehaviourPrior
from trajplan.models.dynamics import DynamicsEnsemble, Step
from trajplan.planners.cem import CEM, CEMConfig
from trajplan.planners.controller import PlanningPolicy
from trajplan.planners.mbop import MBOP, MBOPConfig
from trajplan.planners.plan import Plan
from trajplan.planners.random_shooting import RandomShooting, RandomShootingConfig
from trajplan.planners.registry import PLANNERS, planner_named

S, A, LIMIT = 2, 1, 6.0
MOVES = np.array([[1.0, 0.3], [0.0, 0.9]])
PUSH = np.array([[0.05], [0.3]])
STATE_COST, ACTION_COST = np.diag([1.0, 0.2]), np.array([[0.1]])
BEST = solve_discrete_are(MOVES, PUSH, STATE_COST, ACTION_COST)

SETTINGS = [
    ("random_shooting", {"horizon": 7, "samples": 40}),
    ("random_shooting", {"horizon": 5, "samples": 30, "hold": 2, "kept": 3, "warm_start": False, "replan_every": 2}),
    ("cem", {"horizon": 7, "samples": 20, "elites": 5, "iterations": 3}),
    ("cem", {"horizon": 1, "samples": 12, "elites": 4, "noise_exponent": 0.0, "keep": 0.0, "shrink": 1.0}),
    ("mppi", {"horizon": 6, "samples": 25, "iterations": 2}),
    ("mppi", {"horizon": 4, "samples": 25, "iterations": 1, "noise_exponent": 0.0, "kept": 5, "replan_every": 3}),
    ("mbop", {"horizon": 6, "samples": 12}),
    ("mbop", {"horizon": 3, "samples": 9, "mix": 0.0, "penalty_weight": 0.5, "kept": 4}),
]


def box_info(observation_dim=S, action_space=None):
    space = action_space or gym.spaces.Box(-LIMIT, LIMIT, (A,), np.float32)
    size = 1 if isinstance(space, gym.spaces.Discrete) else space.shape[0]
    episode = {
        "observations": np.zeros((3, observation_dim)),
        "actions": np.zeros((2, size)),
        "rewards": np.zeros(2),
        "terminations": np.zeros(2, bool),
        "truncations": np.arange(2) == 1,
    }
    observations = gym.spaces.Box(-np.inf, np.inf, (observation_dim,))
    return OfflineDataset.from_episodes([episode], observation_space=observations, action_space=space).info


INFO = box_info()


class Exact:
    """The linear system as an ensemble of one that knows it; `doubt` of a state and action is its uncertainty."""

    def __init__(self, doubt=lambda states, actions: torch.zeros(len(states)), ends=lambda states: states[:, 0] > 1e9):
        self.elites, self.doubt, self.ends = torch.arange(1), doubt, ends

    def expected(self, observations, actions, uncertainty=None, *, followed=None, likelihood=False):
        moves, push, cost, effort = (
            torch.tensor(m, dtype=torch.float32) for m in (MOVES, PUSH, STATE_COST, ACTION_COST)
        )
        following = observations @ moves.T + actions @ push.T
        rewards = -torch.einsum("bi,ij,bj->b", observations, cost, observations)
        rewards = rewards - torch.einsum("bi,ij,bj->b", actions, effort, actions)
        doubt = self.doubt(observations, actions) if uncertainty else None
        return Step(following, rewards, self.ends(following), doubt, torch.zeros(len(rewards)) if likelihood else None)


class Quadratic:
    """The value of the best there is to do."""

    needs_goals, has_q, discount = False, False, 1.0

    def values(self, observations, goals=None):
        return -torch.einsum("bi,ij,bj->b", observations, torch.tensor(BEST, dtype=torch.float32), observations)


def ensemble(seed=0, scale=0.3):
    """A random ensemble with a prior."""
    torch.manual_seed(seed)
    dynamics = DynamicsEnsemble(3, 2, 4, 3, (16,))
    dynamics.prior = BehaviourPrior(3, 2, 4, 3, (16,), 5)
    dynamics.elites.copy_(torch.tensor([2, 0, 3]))
    dynamics.target_std.fill_(scale)
    return dynamics.requires_grad_(False)


RANDOM_INFO = box_info(3, gym.spaces.Box(np.float32([-1, 0]), np.float32([1, 3])))


def planner(name, settings, dynamics=None, **options):
    entry = planner_named(name)
    return entry.planner_class()(dynamics or ensemble(), RANDOM_INFO, entry.config_class()(**settings), **options)


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def problem(batch, context, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, generator=random), torch.rand(batch, context, 6, generator=random)


def fields(plan):
    return {field.name: getattr(plan, field.name) for field in dataclasses.fields(Plan)}


def test_every_planner_on_an_ensemble_is_tried_here():
    assert {name for name, _ in SETTINGS} == {name for name, entry in PLANNERS.items() if entry.on == "dynamics"}


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_a_batch_gives_the_plans_of_single_environments_and_a_seed_its_plan(name, settings):
    search = planner(name, settings)
    observations, past = problem(3, search.config.context)
    last = [None, search.plan(observations[:1], past[:1], generators(9))[1].row(0), None]
    actions, together = search.plan(observations, past, generators(4, 5, 6), previous=last)
    again = fields(search.plan(observations, past, generators(4, 5, 6), previous=last)[1])
    for field, value in fields(together).items():
        torch.testing.assert_close(again[field], value, rtol=0, atol=0)
    for row, seed in enumerate((4, 5, 6)):
        one = slice(row, row + 1)
        action, alone = search.plan(observations[one], past[one], generators(seed), previous=last[one])
        torch.testing.assert_close(action, actions[one], atol=1e-5, rtol=1e-5)
        for field, value in fields(alone).items():
            torch.testing.assert_close(value, getattr(together, field)[one], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_a_plan_is_whole_and_the_best_comes_first(name, settings):
    search = planner(name, settings)
    observations, past = problem(3, search.config.context)
    actions, plan = search.plan(observations, past, generators(1, 2, 3))
    B, K, H = plan.rewards.shape
    assert (3, settings["horizon"]) == (B, H)
    assert plan.observations.shape == (B, K, H, 3)
    assert plan.actions.shape == (B, K, H, 2)
    assert plan.returns.shape == plan.alive.shape == (B, K, H)
    assert plan.scores.shape == plan.log_likelihood.shape == (B, K)
    assert (plan.scores.diff(dim=1) <= 0).all()
    assert plan.scores.isfinite().all()
    assert plan.log_likelihood.isfinite().all()
    torch.testing.assert_close(actions, plan.actions[:, 0, 0])
    torch.testing.assert_close(plan.observations[:, :, 0], observations[:, None].expand(-1, K, -1))
    low, high = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 3.0])
    assert ((plan.actions >= low) & (plan.actions <= high)).all()
    assert f"of {H} steps" in repr(plan.row(1))


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_what_is_predicted_of_a_plan_is_what_the_ensemble_says(name, settings):
    dynamics = ensemble()
    search = planner(name, settings, dynamics)
    observations, past = problem(2, search.config.context)
    _, plan = search.plan(observations, past, generators(1, 2))
    state = plan.observations[:, :, 0].flatten(0, 1)
    for step in range(settings["horizon"]):
        torch.testing.assert_close(plan.observations[:, :, step].flatten(0, 1), state, atol=1e-5, rtol=1e-5)
        prediction = dynamics.predict(state, plan.actions[:, :, step].flatten(0, 1), dynamics.elites)
        mean = prediction.mean.mean(0)
        torch.testing.assert_close(plan.rewards[:, :, step].flatten(), mean[:, -1], atol=1e-5, rtol=1e-5)
        state = state + mean[:, :-1]
    # Without a critic the return-to-go is that of the rewards in the plan.
    after = torch.zeros_like(plan.rewards[..., 0])
    for step in reversed(range(settings["horizon"])):
        torch.testing.assert_close(plan.returns[..., step], after, atol=1e-5, rtol=1e-5)
        after = plan.rewards[..., step] + 0.99 * after


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_episodes_that_end_in_the_plan_earn_no_more(name, settings):
    settings = settings | {"horizon": max(3, settings["horizon"])}
    dynamics = ensemble()
    dynamics.rule = lambda states: torch.ones(states.shape[:-1], dtype=torch.bool)
    search = planner(name, settings, dynamics)
    _, plan = search.plan(*problem(2, search.config.context), generators(0, 1))
    assert plan.alive[:, :, 0].all()
    assert not plan.alive[:, :, 1:].any()
    assert (plan.rewards[:, :, 1:] == 0).all()
    assert (plan.returns == 0).all()
    assert (plan.rewards[:, :, 0] != 0).all()


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_environments_acted_for_together_get_the_actions_they_get_alone(name, settings):
    course = np.random.default_rng(0).normal(size=(6, 3, 3)).astype(np.float32)

    def acted(rows):
        policy = PlanningPolicy(planner(name, settings), RANDOM_INFO)
        taken = []
        for t in range(6):
            # Slot 2 begins its episode two steps later.
            begun = [row for row in rows if t == (2 if row == 2 else 0)]
            policy.reset(begun, begun)
            here = [row for row in rows if row < 2 or t >= 2]
            if here:
                taken.append(policy.act(course[t, here], np.zeros(len(here), np.float32), np.array(here))[-1])
        return np.stack(taken)

    together = acted([0, 1, 2])
    np.testing.assert_allclose(acted([2]), together[2:], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(acted([0, 1]), np.concatenate([together[:2], acted([0, 1])[2:]]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["random_shooting", "cem", "mppi", "mbop"])
def test_discrete_actions_are_refused(name):
    entry = planner_named(name)
    info = box_info(3, gym.spaces.Discrete(3))
    with pytest.raises(ConfigError, match=f"has Discrete actions, and {entry.config} is of a planner"):
        entry.planner_class()(ensemble(), info, entry.config_class()())


def control(search, starts, steps=30, info=INFO):
    """Costs (n,) of acting in the system by a planner from states (n, S), and their plans."""
    policy = PlanningPolicy(search, info)
    rows = np.arange(len(starts))
    policy.reset(rows.tolist(), rows.tolist())
    states, cost = np.array(starts, np.float64), np.zeros(len(starts))
    for _ in range(steps):
        actions = policy.act(states.astype(np.float32), np.zeros(len(starts), np.float32), rows)
        cost += np.einsum("bi,ij,bj->b", states, STATE_COST, states)
        cost += np.einsum("bi,ij,bj->b", actions, ACTION_COST, actions)
        states = states @ MOVES.T + actions @ PUSH.T
    # What the best would still pay from there.
    return cost + np.einsum("bi,ij,bj->b", states, BEST, states)


STARTS = np.array([[2.0, 0.0], [-1.5, 1.0], [1.0, -2.0], [-2.0, -0.5]])
LQR = np.einsum("bi,ij,bj->b", STARTS, BEST, STARTS)
KNOWN = {"discount": 1.0, "penalty_weight": 0.0, "horizon": 8}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("cem", {"samples": 100, "iterations": 6}),
        ("cem", {"iterations": 8, "start_std": 0.3, "noise_exponent": 0.0, "keep": 0.0, "shrink": 1.0}),
        ("mppi", {"samples": 128, "iterations": 4, "temperature": 0.1, "std": 0.2}),
    ],
)
def test_a_linear_system_is_controlled_as_well_as_by_lqr(name, settings):
    entry = planner_named(name)
    ratio = control(entry.planner_class()(Exact(), INFO, entry.config_class()(**KNOWN, **settings)), STARTS) / LQR
    assert (ratio >= 1 - 1e-4).all()
    assert (ratio < 1.05).all()


def test_random_shooting_is_worse_than_cem_with_as_many_samples():
    cem = CEMConfig(**KNOWN, samples=60, iterations=4)
    drawn = sum(cem.drawn(iteration) for iteration in range(4))
    shooting = RandomShootingConfig(**KNOWN, samples=drawn, warm_start=False)
    costs = control(RandomShooting(Exact(), INFO, shooting), STARTS)
    assert (costs > 1.1 * control(CEM(Exact(), INFO, cem), STARTS)).all()


@pytest.mark.parametrize(
    ("name", "settings"),
    [("cem", {"samples": 12, "elites": 4, "iterations": 1}), ("mppi", {"samples": 12, "iterations": 1}),
     ("random_shooting", {"samples": 12})],
)  # fmt: skip
def test_the_last_plan_helps_where_little_is_drawn(name, settings):
    """Where the middle of the Box, which a search begins at without a plan, is far from what is to be done."""
    entry, info = planner_named(name), box_info(action_space=gym.spaces.Box(-2, 10, (A,)))

    def cost(warm):
        config = entry.config_class()(**KNOWN, **settings, warm_start=warm)
        return control(entry.planner_class()(Exact(), info, config), STARTS, info=info)

    assert (cost(True) < 0.5 * cost(False)).all()


def test_a_critic_sees_beyond_the_horizon():
    short = CEMConfig(**KNOWN | {"horizon": 2}, samples=64, iterations=5, noise_exponent=0.0)
    alone, guided = (control(CEM(Exact(), INFO, short, critic=critic), STARTS) for critic in (None, Quadratic()))
    assert (guided / LQR < 1.02).all()
    assert (alone > 1.1 * LQR).all()
    _, plan = CEM(Exact(), INFO, short, critic=Quadratic()).plan(
        torch.tensor(STARTS, dtype=torch.float32), torch.empty(4, 0, 4), generators(0, 1, 2, 3)
    )
    # The value of the state after the last action, then back by the rewards.
    following = plan.observations[:, :, -1] @ torch.tensor(MOVES.T, dtype=torch.float32)
    following = following + plan.actions[:, :, -1] @ torch.tensor(PUSH.T, dtype=torch.float32)
    ends = Quadratic().values(following.flatten(0, 1)).view(4, -1)
    torch.testing.assert_close(plan.returns[..., -1], ends, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(plan.scores, plan.rewards.sum(-1) + ends, atol=1e-4, rtol=1e-4)


class Near:
    """The value of a goal for the first column: how near a state is to it."""

    needs_goals, has_q, discount = True, False, 1.0

    def values(self, observations, goals=None):
        return -(observations[:, 0] - goals[:, 0]).abs()


@pytest.mark.parametrize("name", ["random_shooting", "cem", "mppi"])
def test_a_critic_of_goals_gets_every_environments_own(name):
    class Free(Exact):
        def expected(self, *arguments, **keywords):
            step = super().expected(*arguments, **keywords)
            return dataclasses.replace(step, rewards=torch.zeros_like(step.rewards))

    entry = planner_named(name)
    search = entry.planner_class()(Free(), INFO, entry.config_class()(**KNOWN | {"horizon": 4}), critic=Near())
    states, past = torch.zeros(2, 2), torch.empty(2, 0, 4)
    _, plan = search.plan(states, past, generators(0, 1), goals=torch.tensor([[0.8], [-0.8]]))
    # Each gets near its own, which are 1.6 apart.
    assert (plan.returns[:, 0, -1] > -0.4).all()
    assert plan.observations[0, 0, -1, 0] > plan.observations[1, 0, -1, 0]
    with pytest.raises(ConfigError, match=r"^The critic values states by a goal, and the environment gives none\.$"):
        search.plan(states, past, generators(0, 1))


@pytest.mark.parametrize(("name", "settings"), [("cem", {"samples": 64, "iterations": 5}), ("mppi", {"samples": 256})])
def test_the_penalty_keeps_away_from_what_the_ensemble_does_not_know(name, settings):
    """Pushes to the left are unknown: without a penalty the best is one, with it the planner waits or goes right."""
    entry = planner_named(name)
    dynamics = Exact(doubt=lambda states, actions: 5.0 * (actions[:, 0] < -0.2))
    start, past = torch.tensor([[2.0, 0.0]]), torch.empty(1, 0, 4)

    def acted(weight):
        config = entry.config_class()(**KNOWN | {"penalty_weight": weight}, **settings)
        return entry.planner_class()(dynamics, INFO, config).plan(start, past, generators(0))[0].item()

    assert acted(0.0) < -1
    assert acted(1000.0) > -0.5


def test_a_state_where_episodes_end_is_avoided_by_the_rule():
    """Half the room is a pit, which ends the costs too: where rewards are costs, an end is sought."""
    dynamics = Exact(ends=lambda states: states[:, 0] > 2.5)
    start, past = torch.tensor([[2.3, 0.0]]), torch.empty(1, 0, 4)
    config = CEMConfig(**KNOWN, samples=64)
    towards = CEM(dynamics, INFO, config).plan(start, past, generators(0))[1]
    assert not towards.alive[0, 0, -1]
    away = CEM(Exact(), INFO, config).plan(start, past, generators(0))[0]
    assert towards.actions[0, 0, 0, 0] > 0 > away.item()


def test_mbop_is_what_its_formula_says():
    """Every sequence and every average written out, one number after the other."""
    dynamics, N, H = ensemble(), 7, 4
    config = MBOPConfig(horizon=H, samples=N, mix=0.3, std=0.5, temperature=0.7, discount=0.9, kept=3)
    search = MBOP(dynamics, RANDOM_INFO, config)
    observations, past = problem(1, 1)
    _, last = search.plan(observations, past, generators(8))
    actions, plan = search.plan(observations, past, generators(3), previous=[last.row(0)])

    low, high = np.array([-1.0, 0.0]), np.array([1.0, 3.0])
    noise = 0.5 * torch.randn(N, H, 2, generator=generators(3)[0])
    left = 2 * (last.actions[0, 0].numpy() - low) / (high - low) - 1
    left = np.concatenate([left[1:], left[-1:]])
    before = 2 * (past[0, -1, 3:5].numpy() - low) / (high - low) - 1
    prior, elites = dynamics.prior, dynamics.elites.tolist()
    drawn, scores = np.zeros((N, H, 2)), np.zeros(N)
    for n in range(N):
        member, state, taken = n % 3, observations[0], torch.tensor(before, dtype=torch.float32)
        for t in range(H):
            cloned = prior.actions(state[None], taken[None])[prior.elites[member], 0]
            drawn[n, t] = np.clip(0.7 * (cloned + noise[n, t]).numpy() + 0.3 * left[t], -1, 1)
            taken = torch.tensor(drawn[n, t], dtype=torch.float32)
            real = torch.tensor(low + (drawn[n, t] + 1) / 2 * (high - low), dtype=torch.float32)
            means = dynamics.predict(state[None], real[None]).mean[elites, 0]
            scores[n] += 0.9**t * means[:, -1].mean().item()
            state = state + means[member, :-1]
        scores[n] += 0.9**H * prior.values(state[None], taken[None])[prior.elites, 0].mean().item()
    weights = np.exp(scores / (0.7 * scores.std()))
    mean = (weights[:, None, None] * drawn).sum(0) / weights.sum()
    np.testing.assert_allclose(plan.actions[0, 0].numpy(), low + (mean + 1) / 2 * (high - low), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(actions[0], plan.actions[0, 0, 0])
    shares = np.sort(np.log(weights / weights.sum()))[::-1][:3]
    np.testing.assert_allclose(plan.scores[0].numpy(), [0.0, *shares], rtol=1e-3, atol=1e-4)


def test_mbop_without_a_prior_is_refused():
    dynamics = ensemble()
    dynamics.prior = None
    with pytest.raises(ConfigError, match=r"^mbop plans with cloned policies, and this ensemble was learned without"):
        MBOP(dynamics, RANDOM_INFO, MBOPConfig())


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        *((name, {"horizon": 0}) for name in ("random_shooting", "cem", "mppi", "mbop")),
        ("random_shooting", {"samples": 0}), ("random_shooting", {"hold": 0}), ("random_shooting", {"kept": 0}),
        ("cem", {"elites": 1}), ("cem", {"elites": 101}), ("cem", {"iterations": 0}), ("cem", {"start_std": 0.0}),
        ("cem", {"smallest_std": 0.0}), ("cem", {"momentum": 1.0}), ("cem", {"keep": -0.1}), ("cem", {"shrink": 0.9}),
        ("cem", {"noise_exponent": -1.0}), ("mppi", {"temperature": 0.0}), ("mppi", {"std": float("inf")}),
        ("mppi", {"noise_exponent": 11.0}), ("mbop", {"mix": 1.0}), ("mbop", {"temperature": -1.0}),
        ("cem", {"discount": 0.0}), ("cem", {"penalty_weight": -1.0}), ("mppi", {"replan_every": 16}),
    ],
)  # fmt: skip
def test_what_cannot_plan_is_refused(name, bad):
    with pytest.raises(ConfigError, match=f"^{next(iter(bad))} is "):
        planner_named(name).config_class()(**bad)
