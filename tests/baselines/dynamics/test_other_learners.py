"""A learned model serves any learner with a policy: its settings ask for nothing of soft actor-critic."""

from dataclasses import dataclass

import pytest

from trajplan.baselines.dynamics.settings import ModelBasedConfig
from trajplan.baselines.engine.checkpoint import load_dynamics
from trajplan.baselines.engine.trainer import train
from trajplan.baselines.iql import IQL, IQLConfig
from trajplan.baselines.registry import METHODS, Entry
from trajplan.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ModelIQLConfig(ModelBasedConfig, IQLConfig):
    def __post_init__(self):
        IQLConfig.__post_init__(self)
        ModelBasedConfig.__post_init__(self)


class ModelIQL(IQL):
    """Implicit Q-learning on the data and rollouts of a model."""


def test_implicit_q_learning_learns_in_a_model(walks, small, quick, tmp_path, monkeypatch):
    entry = Entry("Implicit Q-learning in a model", __name__, "ModelIQLConfig", "ModelIQL", None)
    monkeypatch.setitem(METHODS, "model-iql", entry)
    config = small("model-iql", real_ratio=0.25)
    assert not hasattr(config, "temperature_learning_rate")
    result = train(walks, tmp_path, "model-iql", config, quick(), evaluate=lambda policy: {"return": 1.0}, device="cpu")
    assert result.updates == 12
    assert {"value/loss", "critic/loss", "actor/loss", "model/return"} <= result.metrics.keys()
    assert load_dynamics(tmp_path).elites.shape == (2,)


def test_the_models_settings_are_checked_by_themselves():
    with pytest.raises(ConfigError, match=r"model_learning_rate is 0\.0; it must be a finite number above 0"):
        ModelBasedConfig(model_learning_rate=0.0)
    with pytest.raises(ConfigError, match="model_members is 2; it must be at least model_elites"):
        ModelBasedConfig(model_members=2)
