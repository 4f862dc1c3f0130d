"""Planners on a model that reads goals: the goal reaches the model, stays through the window, and has to be there."""

import dataclasses

import numpy as np
import pytest
import torch

from trajplan.errors import ConfigError
from trajplan.models.decoder import CachedDecoder
from trajplan.models.recomputing_decoder import RecomputingDecoder
from trajplan.models.trajectory_transformer import TrajectoryTransformer, TrajectoryTransformerConfig
from trajplan.planners.plan import Plan
from trajplan.planners.registry import planner_named
from trajplan.tokenizers.fit import fit_tokenizer

S, A, V, WINDOW = 3, 2, 9, 4
# Beyond the window of 4 transitions, so that it slides.
SETTINGS = [
    ("beam_search", {"horizon": 7, "beam_width": 5, "context": 2}),
    ("imitation", {"horizon": 6, "beam_width": 3, "context": 1}),
    ("sample_and_select", {"horizon": 7, "samples": 6, "context": 2}),
    ("mcts", {"horizon": 7, "simulations": 40, "leaves": 4, "kept": 3, "context": 1, "replan_every": 6}),
]
GOALS = torch.tensor([[0.9, -0.5, 0.3], [-0.8, 0.6, 0.0]])


@pytest.fixture(scope="module")
def parts():
    torch.manual_seed(0)
    data = np.random.default_rng(0).uniform(-1, 1, size=(500, S + A + 2)).astype(np.float32)
    tokenizer = fit_tokenizer("uniform", data, V)
    sizes = {"observation_dim": S, "action_dim": A, "bins": V, "window": WINDOW, "n_layer": 2, "n_head": 2}
    # Of the goals of the data, which fix columns 1, 0 and 2, the model reads 2 and 0.
    config = TrajectoryTransformerConfig(**sizes, n_embd=16, goal_columns=[2, 0], goal_places=[2, 1])
    config.initializer_range = 0.3
    return TrajectoryTransformer(config).eval(), tokenizer


def plan(parts, name, settings, goals, decoder=CachedDecoder):
    entry = planner_named(name)
    search = entry.planner_class()(*parts, entry.config_class()(**settings), decoder=decoder)
    random = torch.Generator().manual_seed(0)
    observations = torch.rand(2, S, generator=random) * 2 - 1
    past = torch.rand(2, settings["context"], S + A + 1, generator=random) * 2 - 1
    return search.plan(observations, past, [torch.Generator().manual_seed(seed) for seed in (1, 2)], goals)[1]


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_plans_are_those_of_full_passes_with_the_goal_before_them(parts, name, settings):
    cached = plan(parts, name, settings, GOALS)
    plain = plan(parts, name, settings, GOALS, RecomputingDecoder)
    for field in dataclasses.fields(Plan):
        torch.testing.assert_close(getattr(cached, field.name), getattr(plain, field.name), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_each_environment_plans_for_its_own_goal(parts, name, settings):
    both = plan(parts, name, settings, GOALS)
    other = plan(parts, name, settings, torch.stack([GOALS[0], -GOALS[1]]))
    np.testing.assert_array_equal(both.actions[0], other.actions[0])
    assert not np.array_equal(both.log_likelihood[1], other.log_likelihood[1])


def test_the_model_reads_its_own_columns_of_the_goal(parts):
    name, settings = SETTINGS[0]
    unread, one, other = (GOALS.clone() for _ in range(3))
    unread[:, 0] = -unread[:, 0]
    one[:, 1], other[:, 2] = -one[:, 1], -other[:, 2]
    same, *differ = (plan(parts, name, settings, goals).scores for goals in (unread, one, other))
    expected = plan(parts, name, settings, GOALS).scores
    np.testing.assert_array_equal(same, expected)
    assert not any(np.array_equal(scores, expected) for scores in differ)


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_a_goal_that_is_missing_or_outside_the_data_is_refused(parts, name, settings):
    with pytest.raises(ConfigError, match="begun without one: give it at reset"):
        plan(parts, name, settings, None)
    with pytest.raises(ConfigError, match=r"The goal is 1\.5 in the observation's column 2, .* between -0\.99"):
        plan(parts, name, settings, torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.5]]))
    # A column that the model does not read may be anything, and a goal may lie at the data's edge.
    plan(parts, name, settings, torch.tensor([[9.0, 1.0, -1.0]] * 2))
