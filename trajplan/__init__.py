"""Planning by sequence modelling: trajectories become tokens, a GPT-2 learns them, a beam search acts."""

from importlib import import_module
from typing import TYPE_CHECKING

from trajplan.auto_classes import register_trajectory_transformer

__version__ = "0.1.0"

_PUBLIC = {
    "BeamSearch": "trajplan.planners.beam_search",
    "BeamSearchConfig": "trajplan.planners.beam_search",
    "OfflineDataset": "trajplan.data.dataset",
    "TrainConfig": "trajplan.training.config",
    "TrajectoryTransformer": "trajplan.models.trajectory_transformer",
    "TrajectoryTransformerConfig": "trajplan.models.trajectory_transformer",
    "TrajplanError": "trajplan.errors",
    "baseline": "trajplan.baseline_training",
    "dynamics": "trajplan.dynamics_training",
    "evaluate": "trajplan.evaluating",
    "load": "trajplan.hub",
    "train": "trajplan.pretraining",
}

__all__ = ["BeamSearch", "BeamSearchConfig", "OfflineDataset", "TrainConfig", "TrajectoryTransformer"]
__all__ += ["TrajectoryTransformerConfig", "TrajplanError", "__version__", "baseline", "dynamics", "evaluate", "load"]
__all__ += ["train"]

if TYPE_CHECKING:
    from trajplan.baseline_training import baseline
    from trajplan.data.dataset import OfflineDataset
    from trajplan.dynamics_training import dynamics
    from trajplan.errors import TrajplanError
    from trajplan.evaluating import evaluate
    from trajplan.hub import load
    from trajplan.models.trajectory_transformer import TrajectoryTransformer, TrajectoryTransformerConfig
    from trajplan.planners.beam_search import BeamSearch, BeamSearchConfig
    from trajplan.pretraining import train
    from trajplan.training.config import TrainConfig


def __getattr__(name: str) -> object:
    """Import a public name at first use, so that `import trajplan` stays quick and loads no torch."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'trajplan' has no attribute {name!r}")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


register_trajectory_transformer()
