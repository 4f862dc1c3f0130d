"""What AutoConfig knows of the Trajectory Transformer until it is asked for one."""

from importlib import import_module
from typing import Any

from transformers.configuration_utils import PreTrainedConfig
from transformers.models.auto.configuration_auto import AutoConfig

MODEL_TYPE = "trajectory_transformer_planner"


class StandIn(PreTrainedConfig):
    """Gives the Trajectory Transformer's config, the module of which registers it and the model at its first use.

    That module is not imported here: this one is amid transformers' own imports, when the parts that a config and a
    model are built of may not be there yet.
    """

    model_type = MODEL_TYPE

    def __new__(cls, *args: Any, **keywords: Any) -> Any:
        """A `TrajectoryTransformerConfig`."""
        return _config_class()(*args, **keywords)

    @classmethod
    def from_dict(cls, *args: Any, **keywords: Any) -> Any:
        """A `TrajectoryTransformerConfig`, as AutoConfig makes it of a file."""
        return _config_class().from_dict(*args, **keywords)


def _config_class() -> Any:
    return import_module("trajplan.models.trajectory_transformer").TrajectoryTransformerConfig


AutoConfig.register(MODEL_TYPE, StandIn)
