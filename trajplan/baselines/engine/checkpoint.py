"""The folder of a trained baseline: as a Trajectory Transformer's, JSON and safetensors.

config.json names the method and holds its settings, training.json those of the run, dataset.json what is known of the
dataset and how rewards were transformed; model.safetensors holds the networks and the observations' statistics.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trajplan.baselines.dynamics.checkpoint import load_ensemble
from trajplan.baselines.dynamics.learned_model import WEIGHTS as DYNAMICS
from trajplan.baselines.dynamics.learned_model import read_dynamics
from trajplan.baselines.dynamics.settings import ModelBasedConfig
from trajplan.baselines.engine.method import Method
from trajplan.baselines.engine.policy import BaselinePolicy
from trajplan.baselines.engine.settings import RunConfig
from trajplan.baselines.registry import method_named
from trajplan.baselines.settings import GoalConfig
from trajplan.config import from_dict, to_dict
from trajplan.data.info import DatasetInfo
from trajplan.errors import CheckpointError, TrajplanError
from trajplan.files import BASELINE_TYPE, DYNAMICS_TYPE, read_json, write_json
from trajplan.models.dynamics import DynamicsEnsemble
from trajplan.models.networks import Dimensions
from trajplan.models.scaling import Scaling
from trajplan.runs.tensors import difference, read_tensors, write_tensors

WEIGHTS = "model.safetensors"
STATISTICS = ("observation_mean", "observation_std")


def save_settings(
    folder: Path, name: str, config: Any, run: RunConfig, info: DatasetInfo, transform: Mapping[str, Any]
) -> None:
    """Write what stays the same during a run: config.json, dataset.json, training.json.

    Args:
        folder: the run's.
        name, config: the method and its settings.
        run: settings of the run.
        info: the dataset.
        transform: JSON-able, what was done to the rewards that training sees.
    """
    sizes = to_dict(Dimensions.of(info))
    write_json(
        folder / "config.json", {"model_type": BASELINE_TYPE, "method": name, **sizes, "settings": to_dict(config)}
    )
    recorded = {"reward_transform": dict(transform)}
    if isinstance(config, GoalConfig):
        values = config.value_goals
        goals = {"actor": asdict(config.actor_goals), "value": None if values is None else asdict(values)}
        recorded["goal_relabelling"] = {"name": "hindsight", **goals}
    write_json(folder / "dataset.json", info.to_dict() | recorded)
    # Last: from here on the folder holds a run.
    write_json(folder / "training.json", to_dict(run))


def weights_of(method: Method, scaling: Scaling) -> dict[str, Tensor]:
    """What model.safetensors holds, on the CPU."""
    statistics = dict(zip(STATISTICS, (scaling.mean, scaling.std), strict=True))
    return {name: tensor.detach().cpu() for name, tensor in (dict(method.state_dict()) | statistics).items()}


def save_model(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Write model.safetensors, replaced as a whole."""
    write_tensors(folder / WEIGHTS, weights)


def saved_settings(folder: Path) -> tuple[str, Any, RunConfig]:
    """Name and settings of the method, and settings of the run, in a folder."""
    values, run = read_json(folder / "config.json"), read_json(folder / "training.json")
    if values.get("model_type") != BASELINE_TYPE:
        raise CheckpointError(f"{folder} holds a model of type {values.get('model_type')!r}, not {BASELINE_TYPE!r}.")
    try:
        config: Any = from_dict(method_named(values["method"]).config_class(), values["settings"])
        return values["method"], config, from_dict(RunConfig, run)
    except (TrajplanError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder} holds settings that this version cannot read: {error}") from None


def load_baseline(folder: str | Path, device: torch.device | str = "cpu") -> BaselinePolicy:
    """Read a folder, as a policy on `device`."""
    folder, device = Path(folder), torch.device(device)
    if not folder.is_dir():
        raise CheckpointError(f"There is no checkpoint folder {folder}.")
    name, config, _ = saved_settings(folder)
    try:
        info = DatasetInfo.from_dict(read_json(folder / "dataset.json"))
        method = method_named(name).method_class(info)(Dimensions.of(info), config)
    except TrajplanError as error:
        raise CheckpointError(f"{folder} holds settings that this version cannot read: {error}") from None
    _check_sizes(folder, info)
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(f"{folder} has no {WEIGHTS}: its training has not saved yet, or the copy is incomplete.")
    weights = read_tensors(folder / WEIGHTS)
    scaling = restore_weights(folder / WEIGHTS, weights, method, info)
    return BaselinePolicy(name, method.to(device).eval(), scaling.to(device), info)


def load_dynamics(folder: Path) -> DynamicsEnsemble:
    """The trained ensemble in a folder, a baseline's or its own, on the CPU; it speaks the environment's units."""
    if read_json(folder / "config.json").get("model_type") == DYNAMICS_TYPE:
        return load_ensemble(folder)[0]
    _, config, _ = saved_settings(folder)
    path = folder / DYNAMICS
    if not isinstance(config, ModelBasedConfig) or not path.is_file():
        raise CheckpointError(f"{folder} holds no trained dynamics model: it has no {DYNAMICS}.")
    return read_dynamics(path, DatasetInfo.from_dict(read_json(folder / "dataset.json")), config)


def restore_weights(path: Path, weights: Mapping[str, Tensor], method: Method, info: DatasetInfo) -> Scaling:
    """Put what `weights_of` gave back into a method; gives the scaling."""
    differs = difference(weights, weights_of(method, Scaling.of(info)))
    if differs:
        raise CheckpointError(f"{path} does not fit its config.json and dataset.json or is damaged: {differs}.")
    networks = dict(weights)
    mean, std = (networks.pop(name) for name in STATISTICS)
    method.load_state_dict(networks)
    return Scaling.of(info, mean, std)


def _check_sizes(folder: Path, info: DatasetInfo) -> None:
    values, sizes = read_json(folder / "config.json"), to_dict(Dimensions.of(info))
    for name, size in sizes.items():
        if values.get(name) != size:
            raise CheckpointError(
                f"{folder} is mixed up: {name} is {values.get(name)} in config.json and {size} in dataset.json."
            )
