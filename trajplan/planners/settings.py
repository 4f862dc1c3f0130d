"""The settings of a checkpoint's planner: planner.json, and the folders beside it that they name."""

import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from trajplan.config import from_dict, renamed, to_dict
from trajplan.errors import CheckpointError, ConfigError
from trajplan.files import PARTIAL, publish, read_json, write_json, writing
from trajplan.planners.registry import planner_named, planners, registered_name, type_of, typed

PLANNER_FILE = "planner.json"
# What belongs to the model rather than to one planner: another planner of the same model begins with it.
SHARED = ("context", "discount")
# What a planner may be given besides its model: the settings that name folders, and the files of each that are read.
_SETTINGS = ("config.json", "dataset.json", "training.json")
AIDS = {"critic": (*_SETTINGS, "model.safetensors"), "ensemble": (*_SETTINGS, "dynamics.safetensors")}


def aid_files(name: str, folder: Path) -> tuple[str, ...]:
    """The files of an aid that are read, its weights last; an ensemble that was learned by itself is a model."""
    alone = (*_SETTINGS, "model.safetensors")
    files = AIDS[name]
    return alone if not (folder / files[-1]).is_file() and (folder / alone[-1]).is_file() else files


def aids_of(config: Any) -> dict[str, Path]:
    """The folders that a planner's settings name, by the setting."""
    named = {name: getattr(config, name, None) for name in AIDS}
    return {name: Path(folder).expanduser() for name, folder in named.items() if folder is not None}


def describe_planner(config: Any, folder: Path | None = None) -> dict[str, Any]:
    """A planner's settings as JSON-able values, its `type` first; that of an unregistered one is its class.

    Args:
        config: the settings.
        folder: of the checkpoint; the folders in it that they name are seen from there.
    """
    name = registered_name(config) or f"{type(config).__module__}:{type(config).__qualname__}"
    inside = {aid: aid for aid, place in aids_of(config).items() if folder is not None and _is_own(place, folder, aid)}
    return {"type": name, **to_dict(config), **inside}


def save_planner(folder: Path, config: Any) -> None:
    """Write planner.json into a checkpoint folder, atomically; folders that it names are copied in, as `AIDS` says."""
    type_of(config)
    for name, source in aids_of(config).items():
        if not _is_own(source, folder, name):
            _copy(source, folder / name, aid_files(name, source))
    write_json(folder / PLANNER_FILE, describe_planner(config, folder) | {name: name for name in aids_of(config)})


def saved_type(folder: Path) -> str:
    """The name of the planner of a checkpoint folder."""
    name = typed(read_json(folder / PLANNER_FILE))["type"]
    try:
        planner_named(name)
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{folder / PLANNER_FILE}: {error}") from None
    return name


def saved_planner(folder: Path) -> Any:
    """The planner's settings in a checkpoint folder; what folders they name lies in it."""
    values = typed(read_json(folder / PLANNER_FILE))
    try:
        config = from_dict(planner_named(values.pop("type")).config_class(), values)
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{folder / PLANNER_FILE}: {error}") from None
    return replace(config, **{name: str(folder / place) for name, place in aids_of(config).items()})


def todays(values: dict[str, Any]) -> dict[str, Any]:
    """What `describe_planner` gave in an earlier version, with the settings that a known planner has got since."""
    name = (values := typed(values)).pop("type")
    if name in planners():
        config_class = planner_named(name).config_class()
        values = to_dict(config_class()) | renamed(values, config_class)
    return {"type": name, **values}


def planner_config(name: str | None, saved: Any, settings: dict[str, Any]) -> Any:
    """Settings over those of a checkpoint.

    Args:
        name: of the planner; None: the checkpoint's.
        saved: the checkpoint's settings. Another planner takes over what belongs to the model, `SHARED`.
        settings: by name.
    """
    name = name or type_of(saved)
    config_class = planner_named(name).config_class()
    start = to_dict(saved)
    if name != registered_name(saved):
        known = {field.name for field in fields(config_class)}
        start = {key: start[key] for key in SHARED if key in start and key in known}
    return from_dict(config_class, start | settings)


def check_window(config: Any, window: int) -> None:
    """Refuse settings with which a model cannot plan.

    Args:
        config: the planner's.
        window: transitions that the model sees.
    """
    if config.context >= window:
        raise ConfigError(
            f"context is {config.context} transitions, the model's window {window}: choose a larger window, or a "
            "smaller context, so that at least one transition can be planned."
        )
    # Not all planners look ahead by a number of transitions.
    if window < 2 and getattr(config, "horizon", 1) > 1:
        raise ConfigError("A model with a window of 1 transition can only plan with horizon 1.")


def _is_own(place: Path, folder: Path, name: str) -> bool:
    return place.resolve() == (folder / name).resolve()


def _copy(source: Path, target: Path, files: tuple[str, ...]) -> None:
    """Copy a folder's files, and nothing else of it; replaces an earlier copy, and no folder that holds more."""
    missing = [file for file in files if not (source / file).is_file()]
    if missing:
        raise CheckpointError(f"{source} cannot be copied to {target}: it has no {', '.join(missing)}.")
    others = sorted({path.name for path in target.iterdir()} - set(files)) if target.exists() else []
    if others:
        raise CheckpointError(
            f"{source} cannot be copied to {target}, which holds {', '.join(others[:3])}: move that folder elsewhere."
        )
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(PARTIAL + target.name)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for file in files:
            shutil.copyfile(source / file, temporary / file)
        if target.exists():
            shutil.rmtree(target)
        publish(temporary, target)
