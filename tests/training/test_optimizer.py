import math

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from trajplan.errors import ConfigError
from trajplan.models.trajectory_transformer import TrajectoryTransformer, TrajectoryTransformerConfig
from trajplan.training.config import TrainConfig
from trajplan.training.optimizer import decayed_parameters, learning_rate, make_optimizer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    return TrajectoryTransformer(
        TrajectoryTransformerConfig(observation_dim=2, action_dim=1, bins=5, window=2, n_embd=8, n_head=2, n_layer=1)
    )


def test_decay_applies_to_the_matrices_of_linear_layers_and_heads_only(model):
    linear = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    assert len(linear) == 4
    assert decayed_parameters(model) == linear | {"heads"}


def test_every_parameter_is_in_exactly_one_group(model):
    optimizer = make_optimizer(model, TrainConfig(weight_decay=0.3), CPU)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())


def test_a_step_without_gradient_shrinks_the_decayed_alone():
    layer = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Embedding(2, 3))
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    optimizer = make_optimizer(layer, TrainConfig(learning_rate=0.5, weight_decay=0.1), CPU)
    for p in layer.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in layer.named_parameters():
        expected = before[name] * (1 - 0.5 * 0.1) if name == "0.weight" else before[name]
        torch.testing.assert_close(p.detach(), expected)


def test_betas_and_fusion_reach_adamw(model):
    optimizer = make_optimizer(model, TrainConfig(beta1=0.8, beta2=0.7), CPU)
    assert all(group["betas"] == (0.8, 0.7) and group["fused"] for group in optimizer.param_groups)


def test_schedule_in_closed_form():
    config = TrainConfig(updates=1100, warmup_updates=100, learning_rate=2.0, final_learning_rate=0.1)
    assert learning_rate(0, config) == pytest.approx(0.02)
    assert learning_rate(49, config) == pytest.approx(1.0)
    assert learning_rate(99, config) == pytest.approx(2.0)
    assert learning_rate(100, config) == pytest.approx(2.0)
    # Half-way down the cosine: the mean of peak and end.
    assert learning_rate(100 + 333, config) == pytest.approx(0.2 + 0.9 * (1 + math.cos(math.pi * 333 / 999)))
    assert learning_rate(1099, config) == pytest.approx(0.2)


def test_warm_up_takes_at_most_a_tenth_of_a_short_run():
    config = TrainConfig(updates=20, warmup_updates=100, learning_rate=1.0)
    assert [learning_rate(u, config) for u in range(3)] == pytest.approx([0.5, 1.0, 1.0])


@pytest.mark.parametrize("updates", [1, 2, 5])
def test_the_shortest_runs_have_a_schedule(updates):
    config = TrainConfig(updates=updates, learning_rate=1.0)
    rates = [learning_rate(u, config) for u in range(updates)]
    assert all(0.1 <= rate <= 1.0 for rate in rates)
    assert rates == sorted(rates, reverse=True)


def test_a_schedule_without_a_length_is_refused():
    with pytest.raises(ConfigError, match="updates"):
        learning_rate(0, TrainConfig())
