"""The model folder: everything that acting needs, as JSON and safetensors."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trajplan.config import from_dict, to_dict
from trajplan.data.info import DatasetInfo
from trajplan.errors import CheckpointError, TrajplanError
from trajplan.files import read_json, replacing, write_json, writing
from trajplan.models.trajectory_transformer import TrajectoryTransformer, TrajectoryTransformerConfig
from trajplan.runs.tensors import difference
from trajplan.tokenizers.tokenizer import Tokenizer
from trajplan.training.config import TrainConfig
from trajplan.training.goals import relabelling

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class LoadedCheckpoint:
    """What a model folder holds."""

    model: TrajectoryTransformer
    tokenizer: Tokenizer
    info: DatasetInfo
    discount: float
    termination_penalty: float | None
    train_config: TrainConfig


def save_settings(folder: Path, tokenizer: Tokenizer, info: DatasetInfo, config: TrainConfig) -> None:
    """Write what stays the same during a run: tokenizer, dataset.json, training.json."""
    with writing(folder):
        tokenizer.save(folder)
    targets = {"discount": config.discount, "termination_penalty": config.termination_penalty}
    write_json(folder / "dataset.json", info.to_dict() | targets | relabelling(info, config))
    save_training(folder, config)


def save_training(folder: Path, config: TrainConfig) -> None:
    """Write training.json, of which some settings may differ when the run is resumed."""
    write_json(folder / "training.json", to_dict(config))


def save_model(folder: Path, model: TrajectoryTransformer, weights: dict[str, Tensor]) -> None:
    """Write config.json and model.safetensors into `folder`, each replaced as a whole.

    Args:
        folder: the model folder.
        model: whose config is written.
        weights: its full state, on the CPU.
    """
    config = copy.deepcopy(model.config)
    # What `save_pretrained` adds, so that AutoModel finds the class and the numbers' type.
    config.architectures, config.dtype = [type(model).__name__], str(model.dtype).removeprefix("torch.")
    with writing(folder / WEIGHTS):
        with replacing(folder / "config.json") as temporary:
            config.to_json_file(temporary)
        with replacing(folder / WEIGHTS) as temporary:
            save_file(weights, temporary, metadata={"format": "pt"})
            # safetensors writes files that only their owner can read.
            temporary.chmod((folder / "config.json").stat().st_mode)


def save_model_folder(
    folder: Path,
    model: TrajectoryTransformer,
    tokenizer: Tokenizer,
    info: DatasetInfo,
    config: TrainConfig,
) -> None:
    """Write a whole model folder, which `load_model_folder` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    save_settings(folder, tokenizer, info, config)
    save_model(folder, model, {name: tensor.cpu() for name, tensor in model.state_dict().items()})


def load_model_folder(folder: str | Path, device: torch.device | str = "cpu") -> LoadedCheckpoint:
    """Read a model folder, the model in evaluation mode on `device`."""
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"There is no checkpoint folder {folder}.")
    dataset = read_json(folder / "dataset.json")
    training = read_json(folder / "training.json")
    tokenizer = Tokenizer.load(folder)
    try:
        info, train_config = DatasetInfo.from_dict(dataset), from_dict(TrainConfig, training)
        discount, penalty = float(dataset["discount"]), dataset["termination_penalty"]
    except (TrajplanError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder} holds settings that this version cannot read: {error}") from None
    model = _load_model(folder)
    _check_together(folder, model.config, tokenizer, info)
    return LoadedCheckpoint(
        model=model.to(device).eval(),
        tokenizer=tokenizer.to(device),
        info=info,
        discount=discount,
        termination_penalty=penalty,
        train_config=train_config,
    )


def _load_model(folder: Path) -> TrajectoryTransformer:
    config: dict[str, Any] = read_json(folder / "config.json")
    kind = TrajectoryTransformerConfig.model_type
    if config.get("model_type") != kind:
        raise CheckpointError(f"{folder} holds a model of type {config.get('model_type')!r}, not {kind!r}.")
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(f"{folder} has no {WEIGHTS}: its training has not saved yet, or the copy is incomplete.")
    try:
        model = TrajectoryTransformer(TrajectoryTransformerConfig.from_dict(config))
        weights = load_file(folder / WEIGHTS)
        reason = difference(weights, model.state_dict())
    except (SafetensorError, RuntimeError, ValueError, TypeError, OSError) as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if reason:
        raise CheckpointError(f"The model in {folder} does not fit its config.json or is damaged: {reason}.")
    model.load_state_dict(weights)
    return model


def _check_together(folder: Path, config: TrajectoryTransformerConfig, tokenizer: Tokenizer, info: DatasetInfo) -> None:
    model = (config.observation_dim, config.action_dim)
    data = (info.observation_dim, info.action_dim)
    if model != data:
        raise CheckpointError(
            f"{folder} is mixed up: config.json has {model[0]} observation and {model[1]} action dimensions, "
            f"dataset.json {data[0]} and {data[1]}."
        )
    counts = config.bin_counts or [config.bins] * config.transition_dim
    if (config.bins, counts) != (tokenizer.bins, tokenizer.sizes.tolist()):
        raise CheckpointError(f"{folder} is mixed up: tokenizer.json has other bins than config.json.")
