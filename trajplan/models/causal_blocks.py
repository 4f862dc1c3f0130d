"""Causal attention in blocks of queries, for training on a CPU.

Block after block of queries meets the keys up to its own end, so that most of the masked half is never computed; a few
windows at a time, so that their scores stay in the processor's cache. Written out as matrix products it is fast in
bfloat16 backwards too, and dropout costs little.

Shapes: B sequences, H heads, L positions, d numbers a head; N = B·H pairs of a sequence and a head.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface

from trajplan.models.dropout import kept

NAME = "causal_blocks"
# Queries of a block: fewer skip more of the masked half, more make larger products.
QUERIES = 80
# Scores at a time: about what the cache of a core holds.
SCORES = 1 << 19


def causal_blocks(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention as transformers calls it: from (B, H, L, d) each to (B, L, H, d).

    Raises:
        ValueError: for a mask, or for other keys than the queries' own.
    """
    if attention_mask is not None or query.shape != key.shape:
        raise ValueError(f"{NAME} is causal attention of a whole sequence to itself, without a mask.")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    with torch.autocast(query.device.type, enabled=False):
        return _CausalBlocks.apply(query, key, value, scale, dropout), None


class _CausalBlocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_BHLd: Tensor, k_BHLd: Tensor, v_BHLd: Tensor, scale: float, dropout: float) -> Tensor:
        B, H, L, d = q_BHLd.shape
        q, k, v = (x.reshape(B * H, L, d) for x in (q_BHLd, k_BHLd, v_BHLd))
        blocks, groups = _blocks(L), _groups(B, H, L)
        bias = torch.full((L, L), float("-inf"), dtype=q.dtype, device=q.device).triu(1)
        out_BLHd = q.new_empty(B, L, H, d)
        saved = []
        for group in groups:
            pairs = slice(group.start * H, group.stop * H)
            q_g, k_g, v_g = q[pairs], k[pairs].transpose(1, 2), v[pairs]
            for start, end in blocks:
                scores = torch.baddbmm(bias[start:end, :end], q_g[:, start:end], k_g[..., :end], alpha=scale)
                weights = torch.softmax(scores, -1, out=scores)
                mask = kept(weights, dropout) if dropout else None
                used = weights if mask is None else weights * mask
                block = torch.bmm(used, v_g[:, :end])
                if dropout:
                    block /= 1 - dropout
                out_BLHd[group, start:end] = block.view(-1, H, end - start, d).transpose(1, 2)
                if any(ctx.needs_input_grad):
                    saved += [weights] if mask is None else [weights, mask]
        ctx.save_for_backward(q, k, v, *saved)
        ctx.heads, ctx.scale, ctx.dropout = H, scale, dropout
        return out_BLHd

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *saved = ctx.saved_tensors
        H, scale, dropout = ctx.heads, ctx.scale, ctx.dropout
        (N, L, d), B = q.shape, len(q) // H
        blocks, groups = _blocks(L), _groups(B, H, L)
        g = gradients[0].transpose(1, 2).reshape(N, L, d)
        if dropout:
            g = g / (1 - dropout)
        dq, dk, dv = (q.new_empty(B, L, H, d) for _ in range(3))
        for group in reversed(groups):
            pairs = slice(group.start * H, group.stop * H)
            q_g, k_g, v_g, g_g = q[pairs], k[pairs], v[pairs].transpose(1, 2), g[pairs]
            dk_g, dv_g = torch.empty_like(q_g), torch.empty_like(q_g)
            # From the last block, which is the only one to reach all keys.
            for start, end in reversed(blocks):
                mask = saved.pop() if dropout else None
                weights = saved.pop()
                dweights = torch.bmm(g_g[:, start:end], v_g[..., :end])
                used = weights
                if mask is not None:
                    used, dweights = weights * mask, dweights.mul_(mask)
                dscores = torch._softmax_backward_data(dweights, weights, -1, weights.dtype)
                dq_block = torch.bmm(dscores, k_g[:, :end]).mul_(scale)
                dq[group, start:end] = dq_block.view(-1, H, end - start, d).transpose(1, 2)
                if end == L:
                    torch.bmm(used.transpose(1, 2), g_g[:, start:end], out=dv_g)
                    torch.bmm(dscores.transpose(1, 2), q_g[:, start:end], out=dk_g)
                else:
                    dv_g[:, :end] += torch.bmm(used.transpose(1, 2), g_g[:, start:end])
                    dk_g[:, :end] += torch.bmm(dscores.transpose(1, 2), q_g[:, start:end])
            dk[group] = dk_g.mul_(scale).view(-1, H, L, d).transpose(1, 2)
            dv[group] = dv_g.view(-1, H, L, d).transpose(1, 2)
        dq_BHLd, dk_BHLd, dv_BHLd = (x.transpose(1, 2) for x in (dq, dk, dv))
        return dq_BHLd, dk_BHLd, dv_BHLd, None, None


def _blocks(length: int) -> list[tuple[int, int]]:
    """The first query of each block and the one after its last; all blocks but the last are of one size."""
    size = -(-length // max(1, round(length / QUERIES)))
    return [(start, min(start + size, length)) for start in range(0, length, size)]


def _groups(sequences: int, heads: int, length: int) -> list[slice]:
    """Which sequences are computed together."""
    size = max(1, SCORES // (heads * length * min(length, QUERIES)))
    return [slice(start, min(start + size, sequences)) for start in range(0, sequences, size)]


AttentionInterface.register(NAME, causal_blocks)
