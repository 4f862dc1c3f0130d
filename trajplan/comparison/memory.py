"""How much memory this process took at most."""

import contextlib
import sys
from pathlib import Path


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes; memory-mapped data that were read are in it."""
    # Not getrusage where it can be helped: on Linux it starts from the memory of the process that started this one.
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_gpu_memory() -> int | None:
    """Largest memory of tensors on the current GPU so far, in bytes; None if no GPU was used."""
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else None
