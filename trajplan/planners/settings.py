"""The settings of a checkpoint's planner: planner.json."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from trajplan.config import from_dict, to_dict
from trajplan.errors import CheckpointError, ConfigError
from trajplan.files import read_json, write_json
from trajplan.planners.registry import planner_named, registered_name, type_of, typed

PLANNER_FILE = "planner.json"
# What belongs to the model rather than to one planner: another planner of the same model begins with it.
SHARED = ("context", "discount")


def describe_planner(config: Any) -> dict[str, Any]:
    """A planner's settings as JSON-able values, its `type` first; that of an unregistered one is its class."""
    name = registered_name(config) or f"{type(config).__module__}:{type(config).__qualname__}"
    return {"type": name, **to_dict(config)}


def save_planner(folder: Path, config: Any) -> None:
    """Write planner.json into a checkpoint folder, atomically."""
    write_json(folder / PLANNER_FILE, {"type": type_of(config), **to_dict(config)})


def saved_type(folder: Path) -> str:
    """The name of the planner of a checkpoint folder."""
    name = typed(read_json(folder / PLANNER_FILE))["type"]
    try:
        planner_named(name)
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{folder / PLANNER_FILE}: {error}") from None
    return name


def saved_planner(folder: Path) -> Any:
    """The planner's settings in a checkpoint folder."""
    values = typed(read_json(folder / PLANNER_FILE))
    try:
        return from_dict(planner_named(values.pop("type")).config_class(), values)
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{folder / PLANNER_FILE}: {error}") from None


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
