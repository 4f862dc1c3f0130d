"""Where to compute."""

import torch

from trajplan.errors import ConfigError


def choose_device(name: str | None = None) -> torch.device:
    """The device of a name such as `cpu` or `cuda:1`, made the current one; None: a GPU if there is one."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        # With a value to fetch: `meta` has none.
        torch.empty(1, device=name).cpu()
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(f"There is no device {name!r} here ({reason}); give --device cpu, or leave it out.") from None
    device = torch.device(name)
    if device.index is not None and device.type == "cuda":
        # Streams and graphs belong to the current device.
        torch.cuda.set_device(device)
    return device


def check_device(name: str | None = None) -> None:
    """Refuse `cpu`, `cuda` or None as `choose_device` does, for a process that leaves the GPU's memory to others."""
    # Without a GPU there is nothing for the probe to hold, and it tells why; with one it would make a context on it.
    if not torch.cuda.is_available():
        choose_device(name)


def cpu_gains_by_bf16() -> bool:
    """Whether the processor has units (AMX, AVX512-BF16) that multiply bfloat16 faster than float32."""
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def plans_narrow(precision: str, device: torch.device) -> bool:
    """Whether a planning precision means bfloat16 on `device`; auto does on a CPU with AMX.

    Other units for bfloat16 gained too little to change plans for: an AVX512-BF16 processor a tenth.
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise ConfigError(f"precision is {precision!r}; it must be auto, float32 or bfloat16.")
    if precision == "bfloat16" and device.type != "cpu":
        raise ConfigError(f"precision bfloat16 is for planning on a CPU, and the device is {device}: use float32.")
    return precision == "bfloat16" or (
        precision == "auto" and device.type == "cpu" and torch.cpu._is_amx_tile_supported()
    )


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch wanted more memory than there is, on whatever device."""
    # On a CPU it is a plain RuntimeError, also where the size is no 64-bit number.
    sizes = ("can't allocate memory", "Storage size calculation overflowed")
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in sizes)
