"""The settings of a pretraining run in a folder, and whether it can be resumed with others."""

from dataclasses import replace
from pathlib import Path

from trajplan.config import from_dict
from trajplan.errors import CheckpointError, ConfigError
from trajplan.files import BASELINE_TYPE, read_json
from trajplan.runs.folder import refuse_changes
from trajplan.training.config import TrainConfig, differences

# What runs of versions without these settings did.
EARLIER = {"attention": "sdpa"}


def saved_config(folder: Path) -> TrainConfig:
    """The resolved settings of the run in a folder; a baseline's is refused."""
    config = read_json(folder / "config.json") if (folder / "config.json").exists() else {}
    if config.get("model_type") == BASELINE_TYPE:
        method = config.get("method")
        raise CheckpointError(
            f"{folder} holds a run of {method}, which trajplan train cannot resume: give trajplan baseline {method} "
            "--resume, or another --output."
        )
    path = folder / "training.json"
    try:
        return from_dict(TrainConfig, EARLIER | read_json(path))
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from None


def keep_open_settings(folder: Path, config: TrainConfig) -> TrainConfig:
    """Settings in which `auto` becomes what the run in a folder was settled to, on whatever machine."""
    saved, names = saved_config(folder), ("precision", "attention")
    return replace(config, **{name: getattr(saved, name) for name in names if getattr(config, name) == "auto"})


def check_same_settings(folder: Path, config: TrainConfig) -> None:
    """Refuse to resume a run with other settings; more updates lengthen it."""
    before = saved_config(folder)
    if (config.updates or 0) > (before.updates or 0):
        config = replace(config, updates=before.updates)
    refuse_changes(folder, differences(config, before))
