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
    """The trackers that the setting asks for.

    Raises:
        ConfigError: naming one that there is not.
    """
    names = [name.strip() for name in trackers.split(",") if name.strip()]
    for name in names:
        require(name in PACKAGES, "trackers", name, f"be among {', '.join(PACKAGES)}")
    return names


def check_trackers(names: list[str]) -> None:
    """Refuse a tracker whose package is not installed.

    Raises:
        ConfigError: naming the package.
    """
    for name in names:
        if not any(find_spec(package) for package in PACKAGES[name]):
            package = PACKAGES[name][0]
            raise ConfigError(f"Tracker {name!r} needs the package {package}: pip install {package}.")


class Trackers:
    """What mirrors the metrics of a run that needs nothing else of accelerate.

    Args:
        trackers: the setting; empty: nothing is mirrored.
        folder: the run's, in which trackers that write files have a folder.
        settings: of the run, to be kept beside its metrics.
        cpu: whether the run is on a CPU.
    """

    def __init__(self, trackers: str, folder: Path, settings: dict[str, Any], *, cpu: bool) -> None:
        names = tracker_names(trackers)
        self._accelerator = _started(names, folder, settings, cpu) if names else None

    def log(self, values: dict[str, Any]) -> None:
        """Send a line of metrics.jsonl."""
        if self._accelerator is not None:
            numbers = {name: value for name, value in values.items() if name != "update"}
            self._accelerator.log(numbers, step=values["update"])

    def close(self) -> None:
        """Tell them that the run has ended."""
        if self._accelerator is not None:
            self._accelerator.end_training()


def _started(names: list[str], folder: Path, settings: dict[str, Any], cpu: bool) -> "Accelerator":
    # Here, as a run without trackers needs no accelerate.
    from accelerate import Accelerator
    from accelerate.utils import ProjectConfiguration

    project = ProjectConfiguration(str(folder), logging_dir=str(folder / FOLDER))
    accelerator = Accelerator(cpu=cpu, log_with=names, project_config=project)
    known = {name: value if isinstance(value, int | float | str) else str(value) for name, value in settings.items()}
    accelerator.init_trackers("trajplan", config=known)
    return accelerator
