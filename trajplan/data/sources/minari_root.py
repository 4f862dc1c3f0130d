"""Where Minari datasets live on this machine."""

import os
from pathlib import Path

from minari.storage import get_dataset_path

from trajplan.errors import DataError


def dataset_root() -> Path:
    """The folder of the Minari datasets on this machine: `MINARI_DATASETS_PATH`, else `~/.minari/datasets`.

    Raises:
        DataError: when it is not there and cannot be made.
    """
    try:
        return get_dataset_path()
    except OSError as error:
        folder = os.environ.get("MINARI_DATASETS_PATH", "~/.minari/datasets")
        raise DataError(
            f"The folder of the Minari datasets, {folder}, cannot be used ({error.strerror}); name another in "
            "MINARI_DATASETS_PATH."
        ) from None
