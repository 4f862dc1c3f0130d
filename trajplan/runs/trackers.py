"""Where a run's metrics go besides metrics.jsonl, through accelerate."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trajplan.config import option, require
from trajplan.errors import ConfigError

if TYPE_CHECKING:
    from accelerate import Accelerator

# The packages of which one must be there, by tracker.
PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",), "trackio": ("trackio",)}
FOLDER = "trackers"


def trackers_option(group: str = "") -> str:
    """The setting `trackers` of a run."""
    return option("", f"where metrics go besides metrics.jsonl, comma-separated: {', '.join(PACKAGES)}", group)


def tracker_names(trackers: str) -> list[str]:
    """The trackers that the setting asks for."""
    names = [name.strip() for name in trackers.split(",") if name.strip()]
    for name in names:
        require(name in PACKAGES, "trackers", name, f"be among {', '.join(PACKAGES)}")
    return names


def check_trackers(names: list[str]) -> None:
    """Refuse a tracker whose package is not installed."""
    for name in names:
        if not any(find_spec(package) for package in PACKAGES[name]):
            package = PACKAGES[name][0]
            raise ConfigError(f"Tracker {name!r} needs the package {package}: pip install {package}.")


def tracking(trackers: str, folder: Path) -> dict[str, Any]:
    """What accelerate needs to know of the trackers of the run in a folder, as arguments of its `Accelerator`."""
    # Here, as a run without trackers needs no accelerate.
    from accelerate.utils import ProjectConfiguration

    project = ProjectConfiguration(str(folder), logging_dir=str(folder / FOLDER))
    return {"log_with": tracker_names(trackers) or None, "project_config": project}


def start_trackers(accelerator: "Accelerator", settings: dict[str, Any]) -> "Accelerator":
    """Start the trackers of an accelerator, which keep the settings of the run beside its metrics."""
    known = {name: value if isinstance(value, int | float | str) else str(value) for name, value in settings.items()}
    accelerator.init_trackers("trajplan", config=known)
    return accelerator
