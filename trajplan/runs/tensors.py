"""Tensors on disk, as safetensors."""

import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trajplan.errors import CheckpointError
from trajplan.files import replacing, writing


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write safetensors to `path`, atomically."""
    with writing(path), replacing(path) as temporary:
        # safetensors writes files that only their owner can read; this one keeps the mode of any other new file.
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary)
        temporary.chmod(mode)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU; `…_deviation`, as earlier versions wrote it, is `…_std`."""
    try:
        return {re.sub("_deviation$", "_std", name): tensor for name, tensor in load_file(path).items()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from None


def difference(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str | None:
    """The first tensor that is missing, of another shape or one too many, in a few words; None if all fit."""
    for name, tensor in expected.items():
        if name not in found:
            return f"it has no {name}"
        if found[name].shape != tensor.shape:
            return f"{name} is {tuple(found[name].shape)}, not {tuple(tensor.shape)}"
    return next((f"it has a {name}, which the model has not" for name in found if name not in expected), None)
