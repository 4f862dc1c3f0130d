"""What holds for every method of the registry."""

import ast
import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from trajplan.baselines.engine.checkpoint import load_baseline, save_model, save_settings, weights_of
from trajplan.baselines.engine.policy import BaselinePolicy
from trajplan.baselines.engine.scaling import fit_scaling, scaled_dataset
from trajplan.baselines.engine.settings import RunConfig
from trajplan.baselines.registry import METHODS, method_named
from trajplan.data.goal_shares import GoalShares
from trajplan.data.goals import GoalTransitions
from trajplan.errors import ConfigError
from trajplan.models.networks import Dimensions

SOURCES = Path(__file__).resolve().parents[2] / "trajplan/baselines"
HEADS = {"bc": ("squashed", "deterministic"), "iql": ("deterministic",), "awac": ("squashed",), "awr": ("squashed",)}
KINDS = ("continuous", "discrete")
CASES = [(name, kind, {}) for name, entry in METHODS.items() for kind in KINDS if getattr(entry, kind)]
# Every other head that a policy may have for continuous actions.
CASES += [(name, "continuous", {"policy": head}) for name, heads in HEADS.items() for head in heads]
# With these settings the next observation is read by the bootstrap alone.
BOOTSTRAP_ALONE = {"gcivl": {"alpha": 1e-30}, "cql": {"alpha": 0.0}, "combo": {"beta": 0.0}}
WITHOUT_BOOTSTRAP = ("bc", "awr", "gcbc")
# Reads the next observation, but bootstraps from nothing.
BOOTSTRAPPING = [case for case in CASES if case[0] != "qrl"]
every_method = pytest.mark.parametrize(("name", "kind", "head"), CASES)


@pytest.fixture
def data(walks, choices):
    return {"continuous": walks, "discrete": choices}


def make(name, dataset, config, seed=0):
    torch.manual_seed(seed)
    return METHODS[name].method_class(dataset.info)(Dimensions.of(dataset.info), config)


def batch_of(dataset):
    scaling = fit_scaling(dataset, True)
    seen = scaled_dataset(dataset, scaling, 1.0, 0.0)
    torch.manual_seed(2)
    shares = GoalShares(0.2, 0.5, "geometric")
    hindsight = GoalTransitions(seen, shares, shares).sample(20)
    batch = seen.transitions(discount=0.99).gather(torch.arange(20))
    return dataclasses.replace(batch, goals=hindsight.goals, actor_goals=hindsight.actor_goals)


def updated(name, dataset, config, batch, count=3):
    method = make(name, dataset, config)
    torch.manual_seed(1)
    for _ in range(count):
        metrics = method.update(batch)
    return method.state_dict(), metrics


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one | other)


@pytest.mark.parametrize(("name", "kind", "head"), BOOTSTRAPPING)
def test_terminals_cut_the_bootstrap_and_nothing_else_does(name, kind, head, data, small):
    dataset = data[kind]
    config, batch = small(name, **head | BOOTSTRAP_ALONE.get(name, {})), batch_of(dataset)
    elsewhere = {"next_observations": batch.next_observations + 1}
    for ended in (True, False):
        before = dataclasses.replace(batch, terminations=torch.full_like(batch.terminations, ended))
        after = dataclasses.replace(before, **elsewhere)
        one, other = (updated(name, dataset, config, b)[0] for b in (before, after))
        assert same(one, other) == (ended or name in WITHOUT_BOOTSTRAP)


@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_a_batch_does_not_tell_a_time_limit_from_the_middle_of_an_episode(kind, data):
    transitions = scaled_dataset(data[kind], fit_scaling(data[kind], True), 1.0, 0.0).transitions()
    batch = transitions.gather(torch.arange(len(transitions)))
    assert torch.equal(batch.terminations, torch.from_numpy(np.array(data[kind].terminations)))
    assert not batch.terminations[torch.from_numpy(np.array(data[kind].truncations))].any()


@every_method
def test_the_batch_is_left_as_it_is_and_the_metrics_are_flat_numbers(name, kind, head, data, small):
    batch = batch_of(data[kind])
    before = copy.deepcopy(vars(batch))
    _, metrics = updated(name, data[kind], small(name, **head), batch)
    for field, value in before.items():
        assert value is getattr(batch, field) is None or torch.equal(getattr(batch, field), value)
    assert "actor/loss" in metrics or "critic/loss" in metrics
    for value in metrics.values():
        assert value.shape == ()
        assert not value.requires_grad
        assert torch.isfinite(value)


@every_method
def test_every_parameter_is_trained_but_the_targets(name, kind, head, data, small):
    config, batch = small(name, **head), batch_of(data[kind])
    before = {key: value.clone() for key, value in make(name, data[kind], config).state_dict().items()}
    after, _ = updated(name, data[kind], config, batch)
    trained = [
        p
        for optimizer in make(name, data[kind], config).optimizers.values()
        for g in optimizer.param_groups
        for p in g["params"]
    ]
    assert len({id(p) for p in trained}) == len(trained)
    for key in before:
        assert not torch.equal(before[key], after[key]), key


@every_method
def test_the_same_seed_gives_the_same_weights(name, kind, head, data, small):
    config, batch = small(name, **head), batch_of(data[kind])
    assert same(updated(name, data[kind], config, batch)[0], updated(name, data[kind], config, batch)[0])


@every_method
def test_actions_lie_in_the_space_and_a_saved_method_acts_identically(name, kind, head, data, small, tmp_path):
    dataset, config = data[kind], small(name, **head)
    method, scaling = make(name, dataset, config), fit_scaling(dataset, True)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.mul_(5)
    policy = BaselinePolicy(name, method, scaling, dataset.info)
    save_settings(tmp_path, name, config, RunConfig(), dataset.info, {"name": "none", "scale": 1.0, "shift": 0.0})
    save_model(tmp_path, weights_of(method, scaling))
    loaded = load_baseline(tmp_path)
    observations = np.random.default_rng(0).normal(5, 20, (50, 3)).astype(np.float32)
    nothing, rows = np.zeros(50, np.float32), np.arange(50)
    goals = np.random.default_rng(1).normal(5, 5, (50, 3)).astype(np.float32)
    policy.reset(range(50), range(50), goals)
    loaded.reset(range(50), range(50), goals)
    actions = policy.act(observations, nothing, rows)
    assert actions.shape == (50, dataset.action_dim)
    assert actions.dtype == np.float32
    for action in actions:
        assert dataset.info.action_space.contains(dataset.info.unflatten_action(action))
    if kind == "continuous":
        assert (actions >= dataset.info.action_space.low).all()
        assert (actions <= dataset.info.action_space.high).all()
    else:
        assert set(actions[:, 0]) <= {0, 1, 2, 3}
    assert np.array_equal(loaded.act(observations, nothing, rows), actions)
    one_by_one = np.concatenate([loaded.act(observations[i : i + 1], nothing[:1], rows[i : i + 1]) for i in range(50)])
    np.testing.assert_allclose(one_by_one, actions, atol=1e-5)


def test_methods_import_neither_each_other_nor_planners_nor_evaluation():
    # But soft actor-critic, which others are built on.
    for name, entry in METHODS.items():
        tree = ast.parse((SOURCES / f"{entry.module.rpartition('.')[2]}.py").read_text())
        imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        others = {other.module for other in METHODS.values()} - {METHODS["sac"].module}
        assert not imported & others, name
        assert not any(str(module).startswith(("trajplan.planners", "trajplan.evaluation")) for module in imported)


def test_an_unknown_method_is_named():
    with pytest.raises(ConfigError, match=r"nknown method 'ppo'; there are bc, "):
        method_named("ppo")


def test_a_continuous_only_method_refuses_discrete_actions(choices):
    entry = dataclasses.replace(METHODS["bc"], discrete=None)
    with pytest.raises(
        ConfigError, match=r"cloning is for continuous actions only, and .*Discrete ones, which bc, gcbc"
    ):
        entry.method_class(choices.info)


@pytest.mark.parametrize("name", METHODS)
def test_bad_settings_are_named(name, small):
    for field, value in {"hidden_layers": 0, "hidden_width": -1}.items():
        with pytest.raises(ConfigError, match=f"{field} is {value}; it must be at least 1"):
            small(name, **{field: value})
    rate = next(f.name for f in dataclasses.fields(small(name)) if f.name.endswith("learning_rate"))
    with pytest.raises(ConfigError, match=f"{rate} is nan"):
        small(name, **{rate: float("nan")})
