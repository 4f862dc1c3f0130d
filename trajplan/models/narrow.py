"""Products in bfloat16 for planning on processors with units for it; all between them stays in float32."""

from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.gpt2.modeling_gpt2 import GPT2Block
from transformers.pytorch_utils import Conv1D

from trajplan.models.trajectory_transformer import TrajectoryTransformer


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
        assert isinstance(block, GPT2Block)
        block.attn.c_attn = NarrowProduct(block.attn.c_attn)
        block.attn.c_proj = NarrowProduct(block.attn.c_proj)
        block.mlp.c_fc = NarrowProduct(block.mlp.c_fc, widen=False)
        block.mlp.c_proj = NarrowProduct(block.mlp.c_proj)
    return model
