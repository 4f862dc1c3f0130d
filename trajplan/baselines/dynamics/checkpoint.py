"""The folder of a dynamics ensemble that was learned by itself: JSON and safetensors, as a transformer's.

config.json says what it is and how large, training.json holds all settings, dataset.json what is known of the dataset;
model.safetensors holds the ensemble and, where it was learned, the behaviour prior.
"""

from pathlib import Path

from trajplan.baselines.dynamics.learned_model import read_dynamics
from trajplan.baselines.dynamics.prior import new_prior
from trajplan.baselines.dynamics.settings import DynamicsConfig
from trajplan.config import from_dict, to_dict
from trajplan.data.info import DatasetInfo
from trajplan.errors import CheckpointError, TrajplanError
from trajplan.files import DYNAMICS_TYPE, read_json, write_json
from trajplan.models.dynamics import DynamicsEnsemble
from trajplan.models.networks import Dimensions
from trajplan.runs.tensors import read_tensors, write_tensors

WEIGHTS = "model.safetensors"
PRIOR = "prior."


def save_settings(folder: Path, config: DynamicsConfig, info: DatasetInfo) -> None:
    """Write what stays the same during a run: config.json, dataset.json, training.json."""
    write_json(folder / "config.json", {"model_type": DYNAMICS_TYPE, **to_dict(Dimensions.of(info))})
    write_json(folder / "dataset.json", info.to_dict())
    # Last: from here on the folder holds a run.
    write_json(folder / "training.json", to_dict(config))


def saved_settings(folder: Path) -> DynamicsConfig:
    """The settings of the ensemble in a folder."""
    found = read_json(folder / "config.json").get("model_type")
    if found != DYNAMICS_TYPE:
        raise CheckpointError(f"{folder} holds a model of type {found!r}, not {DYNAMICS_TYPE!r}.")
    try:
        return from_dict(DynamicsConfig, read_json(folder / "training.json"))
    except TrajplanError as error:
        raise CheckpointError(f"{folder} holds settings that this version cannot read: {error}") from None


def save_ensemble(folder: Path, dynamics: DynamicsEnsemble) -> None:
    """Write model.safetensors, replaced as a whole."""
    write_tensors(folder / WEIGHTS, dynamics.state_dict())


def load_ensemble(folder: Path) -> tuple[DynamicsEnsemble, DatasetInfo]:
    """The ensemble in a folder, with its prior if it has one, on the CPU; and the dataset that it learned from."""
    config = saved_settings(folder)
    path = folder / WEIGHTS
    if not path.is_file():
        raise CheckpointError(f"{folder} has no {WEIGHTS}: its training is not over, or the copy is incomplete.")
    info = DatasetInfo.from_dict(read_json(folder / "dataset.json"))
    weights = read_tensors(path)
    learned = {name.removeprefix(PRIOR): value for name, value in weights.items() if name.startswith(PRIOR)}
    dynamics = read_dynamics(path, info, config)
    if learned:
        prior = new_prior(info, config)
        try:
            prior.load_state_dict(learned)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{path} does not fit its training.json or is damaged: {reason}") from None
        dynamics.prior = prior.requires_grad_(False)
    return dynamics, info
