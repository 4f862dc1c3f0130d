"""What every planner owes, through the registry."""

import dataclasses
import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from trajplan.data.dataset import OfflineDataset
from trajplan.errors import CheckpointError, ConfigError
from trajplan.models.decoder import CachedDecoder
from trajplan.models.recomputing_decoder import RecomputingDecoder
from trajplan.models.trajectory_transformer import TrajectoryTransformer, TrajectoryTransformerConfig
from trajplan.planners.beam_search import BeamSearch, BeamSearchConfig
from trajplan.planners.controller import PlanningPolicy
from trajplan.planners.imitation import ImitationConfig
from trajplan.planners.plan import Plan
from trajplan.planners.registry import PLANNERS, planner_named, type_of
from trajplan.planners.sample_and_select import SampleAndSelectConfig
from trajplan.planners.settings import check_window, planner_config, save_planner, saved_planner
from trajplan.tokenizers.fit import fit_tokenizer

S, A, V, WINDOW = 3, 2, 9, 4
PINNED = Path(__file__).parents[1] / "assets/plans/beam_search.json"

# Small settings of each planner, some beyond the window of 4 transitions.
SETTINGS = [
    ("beam_search", {"horizon": 7, "beam_width": 5, "context": 2}),
    ("beam_search", {"horizon": 3, "beam_width": 4, "context": 1, "observation_top_k": None}),
    ("imitation", {"horizon": 1, "context": 2}),
    ("imitation", {"horizon": 7, "context": 2}),
    ("imitation", {"horizon": 6, "beam_width": 5, "context": 1}),
    ("sample_and_select", {"horizon": 7, "samples": 6, "context": 2}),
    ("sample_and_select", {"horizon": 3, "samples": 6, "context": 0, "top_k": 3, "temperature": 2.0}),
    ("mcts", {"horizon": 7, "simulations": 60, "leaves": 4, "kept": 3, "context": 1, "replan_every": 6}),
    ("mcts", {"horizon": 2, "simulations": 40, "context": 2, "action_cdf": None, "action_top_k": 3}),
]
# A tree is grown by what its values say, on the host.
GRAPHED = [(name, settings) for name, settings in SETTINGS if name != "mcts"]


def make(observation_dim=S, action_dim=A, bins=V, window=WINDOW, discrete=None, scale=0.3, seed=0):
    """A random model whose predictions differ strongly between histories, and a tokenizer to match."""
    torch.manual_seed(seed)
    J = observation_dim + action_dim + 2
    data = np.random.default_rng(seed).uniform(-1, 1, size=(500, J)).astype(np.float32)
    counts: list = [None] * J
    if discrete:
        data[:, observation_dim] = np.arange(500) % discrete
        counts[observation_dim] = discrete
    tokenizer = fit_tokenizer("uniform", data, bins, counts)
    config = TrajectoryTransformerConfig(
        observation_dim=observation_dim,
        action_dim=action_dim,
        bins=bins,
        window=window,
        n_layer=2,
        n_head=2,
        n_embd=16,
        bin_counts=tokenizer.sizes.tolist(),
    )
    config.initializer_range = scale
    return TrajectoryTransformer(config).eval(), tokenizer


def planner(name, settings, parts=None, **options):
    entry = planner_named(name)
    return entry.planner_class()(*(parts or make()), entry.config_class()(**settings), **options)


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def problem(batch, context, observation_dim=S, action_dim=A, seed=0):
    random = torch.Generator().manual_seed(seed)
    observations = torch.rand(batch, observation_dim, generator=random) * 2 - 1
    return observations, torch.rand(batch, context, observation_dim + action_dim + 1, generator=random) * 2 - 1


def assert_same(plan, other, **tolerance):
    for field in dataclasses.fields(Plan):
        torch.testing.assert_close(getattr(plan, field.name), getattr(other, field.name), **tolerance)


def until_end(plan):
    """The plan without what follows a predicted end: trajectories that differ in that alone tie, and rounding sorts."""
    hidden = ~plan.alive[..., None]
    return dataclasses.replace(
        plan, observations=plan.observations.masked_fill(hidden, 0), actions=plan.actions.masked_fill(hidden, 0)
    )


def test_every_planner_on_a_transformer_is_tried_here():
    """Those on a dynamics ensemble are in test_dynamics_planners.py."""
    assert {name for name, _ in SETTINGS} == {name for name, entry in PLANNERS.items() if entry.on == "transformer"}


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_a_batch_gives_the_plans_of_single_environments_and_a_seed_its_plan(name, settings):
    search = planner(name, settings)
    observations, past = problem(3, settings["context"])
    actions, together = search.plan(observations, past, generators(4, 5, 6))
    assert_same(search.plan(observations, past, generators(4, 5, 6))[1], together)
    for row, seed in enumerate((4, 5, 6)):
        one = slice(row, row + 1)
        action, alone = search.plan(observations[one], past[one], generators(seed))
        torch.testing.assert_close(action, actions[one])
        batch = Plan(*(getattr(together, field.name)[one] for field in dataclasses.fields(Plan)))
        assert_same(until_end(alone), until_end(batch), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_plans_are_those_without_a_cache_beyond_the_window_too(name, settings):
    observations, past = problem(2, settings["context"])
    _, cached = planner(name, settings).plan(observations, past, generators(1, 2))
    _, plain = planner(name, settings, decoder=RecomputingDecoder).plan(observations, past, generators(1, 2))
    assert_same(until_end(cached), until_end(plain), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("name", "settings"), GRAPHED)
def test_a_search_reads_no_tensors_value_on_the_host(name, settings):
    """So that a GPU captures it as a graph; on the meta device there are no values to read."""
    search = planner(name, settings)
    noise = search._noise(generators(1, 2)) if hasattr(search, "_noise") else ()
    model, search.tokenizer = search.model.to("meta"), search.tokenizer.to("meta")
    J = model.config.transition_dim
    prefix = torch.zeros(2, settings["context"] * J + S, dtype=torch.int64, device="meta")
    plans = search.search(CachedDecoder(model), prefix, *(value.to("meta") for value in noise))
    assert plans.tokens.shape[2:] == (settings["horizon"], J)


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_a_plan_is_whole_and_the_best_comes_first(name, settings):
    search, (observations, past) = planner(name, settings), problem(3, settings["context"])
    actions, plan = search.plan(observations, past, generators(1, 2, 3))
    B, K, H = plan.rewards.shape
    assert (3, settings["horizon"]) == (B, H)
    assert plan.observations.shape == (B, K, H, S)
    assert plan.actions.shape == (B, K, H, A)
    assert plan.returns.shape == plan.alive.shape == (B, K, H)
    assert plan.scores.shape == plan.log_likelihood.shape == (B, K)
    assert (plan.scores.diff(dim=1) <= 0).all()
    assert plan.scores.isfinite().all()
    assert (plan.log_likelihood < 0).all()
    torch.testing.assert_close(actions, plan.actions[:, 0, 0])
    # In the observation's own bins, of width 2 / 9.
    assert (plan.observations[:, :, 0] - observations[:, None]).abs().max() < 0.12
    # An end lasts, and nothing is earned after it.
    assert (plan.alive.int().diff(dim=-1) <= 0).all()
    assert (plan.rewards[~plan.alive] == 0).all()
    assert (plan.returns[~plan.alive] == 0).all()
    row = plan.row(1)
    assert isinstance(row.rewards, np.ndarray)
    np.testing.assert_array_equal(row.observations, plan.observations[1].numpy())
    assert f"of {H} steps" in repr(row)


def ending(parts, chance):
    """The same model, made to predict an end at the first observation token with about this chance."""
    model, _ = parts
    original = model.next_logits

    def next_logits(hidden, position):
        logits = original(hidden, position)
        if (position + 1) % model.config.transition_dim == 0:
            logits = logits.clone()
            logits[..., -1] = logits[..., :-1].logsumexp(-1) + np.log(chance / (1 - chance))
        return logits

    model.next_logits = next_logits
    return parts


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_episodes_that_end_in_the_plan_earn_no_more(name, settings):
    if settings["horizon"] == 1:
        settings = settings | {"horizon": 3}
    _, plan = planner(name, settings, ending(make(), 0.999)).plan(*problem(2, settings["context"]), generators(0, 1))
    assert not plan.alive[:, 0, 1:].any()
    assert (plan.rewards[:, 0, 1:] == 0).all()
    assert (plan.returns[:, 0] == 0).all()


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_discrete_actions_are_planned(name, settings):
    parts = make(2, 1, V, WINDOW, discrete=3)
    actions, plan = planner(name, settings, parts).plan(*problem(4, settings["context"], 2, 1), generators(*range(4)))
    assert set(plan.actions.unique().tolist()) <= {0.0, 1.0, 2.0}
    assert actions.shape == (4, 1)
    assert plan.scores.isfinite().all()


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_environments_acted_for_together_get_the_actions_they_get_alone(name, settings):
    episodes = [
        {
            "observations": np.random.default_rng(seed).uniform(-1, 1, (9, S)),
            "actions": np.random.default_rng(seed).uniform(-1, 1, (8, A)),
            "rewards": np.random.default_rng(seed).uniform(-1, 1, 8),
            "terminations": np.zeros(8, bool),
            "truncations": np.arange(8) == 7,
        }
        for seed in range(3)
    ]
    box = gym.spaces.Box
    info = OfflineDataset.from_episodes(
        episodes, observation_space=box(-1, 1, (S,)), action_space=box(-1, 1, (A,))
    ).info

    def acted(rows):
        policy = PlanningPolicy(planner(name, settings), info)
        policy.reset(rows, rows)
        taken = []
        for t in range(6):
            observed = np.stack([episodes[row]["observations"][t] for row in rows]).astype(np.float32)
            earned = np.array([episodes[row]["rewards"][t - 1] for row in rows], np.float32)
            taken.append(policy.act(observed, earned, np.array(rows)))
        return np.stack(taken, 1)

    together = acted([0, 1, 2])
    for row in range(3):
        np.testing.assert_allclose(acted([row])[0], together[row], rtol=1e-5)


def test_plans_of_the_beam_search_are_the_pinned_ones():
    torch.manual_seed(0)
    config = TrajectoryTransformerConfig(
        observation_dim=4, action_dim=2, bins=12, window=6, n_layer=2, n_head=2, n_embd=32
    )
    config.initializer_range = 0.3
    model, random = TrajectoryTransformer(config).eval(), np.random.default_rng(0)
    tokenizer = fit_tokenizer("uniform", random.uniform(-1, 1, (500, 8)).astype(np.float32), 12)
    observations = torch.from_numpy(random.uniform(-1, 1, (3, 4)).astype(np.float32))
    past = torch.from_numpy(random.uniform(-1, 1, (3, 2, 7)).astype(np.float32))
    for pinned in json.loads(PINNED.read_text()):
        search = BeamSearch(model, tokenizer, BeamSearchConfig(**pinned["settings"]))
        actions, plan = search.plan(observations, past, generators(0, 1, 2))
        torch.testing.assert_close(actions, torch.tensor(pinned["first_actions"]))
        torch.testing.assert_close(plan.scores, torch.tensor(pinned["scores"]), atol=1e-4, rtol=1e-4)
        likelihood = torch.tensor(pinned["log_likelihood"])
        torch.testing.assert_close(plan.log_likelihood[:, 0], likelihood[:, 0], atol=1e-3, rtol=1e-4)


def test_settings_are_saved_under_the_planners_name(tmp_path):
    for config in (BeamSearchConfig(horizon=3), ImitationConfig(beam_width=4), SampleAndSelectConfig(samples=7)):
        save_planner(tmp_path, config)
        assert json.loads((tmp_path / "planner.json").read_text())["type"] == type_of(config)
        assert saved_planner(tmp_path) == config


def test_settings_without_a_type_are_those_of_a_beam_search(tmp_path):
    (tmp_path / "planner.json").write_text(json.dumps({"horizon": 5, "beam_width": 32, "action_cdf": 0.6}))
    assert saved_planner(tmp_path) == BeamSearchConfig(horizon=5, beam_width=32, action_cdf=0.6)


@pytest.mark.parametrize("content", [{"type": "nosuch"}, {"type": 3}, {"type": "imitation", "n_expand": 2}])
def test_settings_that_cannot_be_read_are_refused(tmp_path, content):
    (tmp_path / "planner.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"planner\.json: "):
        saved_planner(tmp_path)


def test_another_planner_takes_over_what_belongs_to_the_model():
    saved = BeamSearchConfig(horizon=7, context=0, discount=0.9, beam_width=16)
    assert planner_config(None, saved, {"horizon": 3}) == dataclasses.replace(saved, horizon=3)
    chosen = planner_config("sample_and_select", saved, {"samples": 9})
    assert chosen == SampleAndSelectConfig(samples=9, context=0, discount=0.9)
    assert planner_config("imitation", saved, {}) == ImitationConfig(context=0)
    with pytest.raises(ConfigError, match=r"^Unknown planner 'imitate'; did you mean imitation\?$"):
        planner_config("imitate", saved, {})
    with pytest.raises(ConfigError, match="ImitationConfig has no setting 'samples'"):
        planner_config("imitation", saved, {"samples": 3})


@pytest.mark.parametrize("given", ["imitation", {"type": "imitation"}, ImitationConfig])
def test_what_is_no_settings_at_all_is_refused(given):
    with pytest.raises(ConfigError, match=r"^planner is .*; it must be a planner's settings, such as BeamSearchConfig"):
        type_of(given)


def test_a_planner_need_not_have_a_horizon():
    settings = dataclasses.make_dataclass("Plain", ["context"])
    check_window(settings(0), 1)
    with pytest.raises(ConfigError, match=r"^context is 1 transitions"):
        check_window(settings(1), 1)


def test_settings_of_no_registered_planner_are_refused():
    with pytest.raises(ConfigError, match="Plain is no registered planner's settings"):
        type_of(dataclasses.make_dataclass("Plain", ["context"])(0))


def test_what_cannot_plan_is_refused():
    for bad in ({"beam_width": 0}, {"context": -1}, {"horizon": 2, "replan_every": 3}):
        with pytest.raises(ConfigError, match=f"^{next(reversed(bad))} is "):
            ImitationConfig(**bad)
    for bad in ({"samples": 0}, {"top_k": 1}, {"cdf": 0.0}, {"temperature": 0.0}, {"discount": 1.5}):
        with pytest.raises(ConfigError, match=f"^{next(reversed(bad))} is "):
            SampleAndSelectConfig(**bad)
    for name, settings in SETTINGS:
        with pytest.raises(ConfigError, match="context is 4 transitions, the model's window 4"):
            planner(name, settings | {"context": 4})
