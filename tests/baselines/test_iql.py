import numpy as np
import pytest
import torch

from trajplan.baselines.engine.trainer import train
from trajplan.baselines.iql import IQL, IQLConfig
from trajplan.errors import ConfigError
from trajplan.models.networks import Dimensions

STATES = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)


def test_dropout_is_in_the_policys_loss_only():
    torch.manual_seed(0)
    method = IQL(Dimensions(3, 2), IQLConfig(hidden_width=64, dropout=0.5))
    states, actions = torch.from_numpy(STATES), torch.zeros(50, 2)
    assert not torch.equal(method.policy(states).log_prob(actions), method.policy(states).log_prob(actions))
    assert torch.equal(method.critic(states, actions), method.critic(states, actions))
    assert torch.equal(method.value(states), method.value(states))


def test_evaluations_are_without_dropout_and_all_updates_with_it(walks, small, quick, tmp_path, monkeypatch):
    trained, evaluated, update = [], [], IQL.update

    def watched(method, batch):
        trained.append(method.policy.network.training)
        return update(method, batch)

    def evaluate(policy):
        evaluated.append(policy.method.policy.network.training)
        rows = np.arange(len(STATES))
        states = np.resize(STATES, (50, walks.observation_dim))
        assert np.array_equal(policy.act(states, rows, rows), policy.act(states, rows, rows))
        return {}

    settings = quick(updates=4, eval_every=2)
    monkeypatch.setattr(IQL, "update", watched)
    train(walks, tmp_path, "iql", small("iql", dropout=0.5), settings, progress=False, evaluate=evaluate)
    assert trained == [True] * 4
    assert evaluated == [False] * 2


@pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
def test_a_share_that_is_none_is_refused(dropout):
    with pytest.raises(ConfigError, match="dropout"):
        IQLConfig(dropout=dropout)
