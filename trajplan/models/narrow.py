"""Products in bfloat16 for planning on processors with units for it; all between them stays in float32."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from trajplan.devices import cpu_gains_by_bf16
from trajplan.errors import ConfigError
from trajplan.models.trajectory_transformer import TrajectoryTransformer

Precision = Literal["auto", "float32", "bfloat16"]


class NarrowProduct(nn.Module):
    """A layer of GPT-2 (a `Conv1D`) that multiplies in bfloat16, and sums in float32 as the units do.

    Args:
        layer: whose weights are copied.
        widen: give float32; otherwise bfloat16, where another product follows.
    """

    def __init__(self, layer: Conv1D, *, widen: bool = True):
        super().__init__()
        # Row-major as `linear` wants it.
        self.weight = nn.Parameter(layer.weight.detach().t().contiguous().bfloat16(), requires_grad=False)
        self.bias = nn.Parameter(layer.bias.detach().bfloat16(), requires_grad=False)
        self.widen = widen

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        out = F.linear(x.bfloat16(), self.weight, self.bias)
        return out.float() if self.widen else out


def narrow(model: TrajectoryTransformer) -> TrajectoryTransformer:
    """`model`, its blocks' products changed to bfloat16 in place: it can plan, and no longer be trained or saved.

    The heads, norms and attention stay in float32: keys and values in bfloat16 made attention slower where measured.
    """
    for block in model.h:
        block.attn.c_attn = NarrowProduct(block.attn.c_attn)
        block.attn.c_proj = NarrowProduct(block.attn.c_proj)
        block.mlp.c_fc = NarrowProduct(block.mlp.c_fc, widen=False)
        block.mlp.c_proj = NarrowProduct(block.mlp.c_proj)
    return model


def plans_narrow(precision: Precision, device: torch.device) -> bool:
    """Whether a precision means bfloat16 on `device`.

    Raises:
        ConfigError: for a precision of another name, or bfloat16 on other than a CPU.
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise ConfigError(f"precision is {precision!r}; it must be auto, float32 or bfloat16.")
    if precision == "bfloat16" and device.type != "cpu":
        raise ConfigError(f"precision bfloat16 is for planning on a CPU, and the device is {device}: use float32.")
    return precision == "bfloat16" or (precision == "auto" and device.type == "cpu" and cpu_gains_by_bf16())
