"""Tensors on disk, as safetensors."""

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trajplan.errors import CheckpointError
from trajplan.training.files import PARTIAL, fsync


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write safetensors to `path`, atomically."""
    temporary = path.with_name(PARTIAL + path.name)
    # safetensors writes files that only their owner can read; this one keeps the mode of any other new file.
    temporary.touch()
    mode = temporary.stat().st_mode
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary)
    temporary.chmod(mode)
    fsync(temporary)
    os.replace(temporary, path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU.

    Raises:
        CheckpointError: if it is missing or damaged.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from None
