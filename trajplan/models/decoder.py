"""Incremental decoding of a Trajectory Transformer for many beams, each token computed once.

Shapes: B environments, K beams an environment, n candidates a beam, H heads, d width of a head, D = H * d, V bins,
J tokens a transition. A candidate's tokens live in one of three stores:

- the prefix, encoded once per environment and read by all of its beams: (B * H, P, d);
- the trunk, a beam's own tokens, read by all of its candidates: (B * H * K, window * J, d), preallocated;
- the branch, what a candidate has added since the last `select`: (B * H * K * n, J, d), preallocated.
"""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.gpt2.modeling_gpt2 import GPT2Block

from trajplan.models.trajectory_transformer import TrajectoryTransformer


class Decoder(Protocol):
    """What a planner asks of a decoder; `CachedDecoder` and `RecomputingDecoder` give the same logits."""

    def begin(self, tokens: Tensor, beams: int, candidates: int) -> Tensor:
        """Encode what all beams of an environment share, tokens (B, P); logits (B, V + 1) of the next token."""
        ...

    def advance(self, tokens: Tensor) -> Tensor:
        """Append one token to every beam, tokens (B, K); logits (B, K, V + 1). Not while a branch is open."""
        ...

    def expand(self, tokens: Tensor) -> Tensor:
        """Append one token to every candidate's branch, tokens (B, K, n); logits (B, K, n, V + 1)."""
        ...

    def select(self, beams: Tensor, candidates: Tensor) -> None:
        """Make candidate `candidates` (B, K) of beam `beams` (B, K) the new beam in each place; closes the branch."""
        ...

    def restart(self, tokens: Tensor) -> Tensor:
        """Forget all and encode every beam anew from position 0, tokens (B, K, P); logits (B, K, V + 1)."""
        ...


class CachedDecoder:
    """Keeps keys and values; memory is bounded by the window and allocated at the first plan of a given size."""

    def __init__(self, model: TrajectoryTransformer):
        self.model = model
        self.H, self.D = model.config.n_head, model.config.n_embd
        self.d = self.D // self.H
        self.scale = self.d**-0.5
        self.sizes: tuple[int, int, int] | None = None
        self.spare: Tensor
        self.prefix_length = self.trunk_length = self.branch_length = 0

    @torch.no_grad()
    def begin(self, tokens: Tensor, beams: int, candidates: int) -> Tensor:
        """See `Decoder.begin`."""
        self._allocate(tokens.shape[0], beams, candidates)
        hidden, keys_values = self._encode(tokens)
        self.prefix = [(k.flatten(0, 1), v.flatten(0, 1)) for k, v in keys_values]
        self.prefix_length, self.trunk_length, self.branch_length = tokens.shape[1], 0, 0
        return self._logits(hidden[:, -1])

    @torch.no_grad()
    def restart(self, tokens: Tensor) -> Tensor:
        """See `Decoder.restart`."""
        B, K, P = tokens.shape
        hidden, keys_values = self._encode(tokens.flatten(0, 1))
        for store, pair in zip(self.trunk, keys_values, strict=True):
            for i in range(2):
                store[i, :, :P].view(B, self.H, K, P, self.d).copy_(pair[i].unflatten(0, (B, K)).transpose(1, 2))
        self.prefix_length, self.trunk_length, self.branch_length = 0, P, 0
        return self._logits(hidden[:, -1]).unflatten(0, (B, K))

    @torch.no_grad()
    def advance(self, tokens: Tensor) -> Tensor:
        """See `Decoder.advance`."""
        hidden = self._forward(tokens[:, :, None], branching=False)
        self.trunk_length += 1
        return self._logits(hidden).unflatten(0, tokens.shape)

    @torch.no_grad()
    def expand(self, tokens: Tensor) -> Tensor:
        """See `Decoder.expand`."""
        hidden = self._forward(tokens, branching=True)
        self.branch_length += 1
        return self._logits(hidden).unflatten(0, tokens.shape)

    @torch.no_grad()
    def select(self, beams: Tensor, candidates: Tensor) -> None:
        """See `Decoder.select`."""
        assert self.sizes is not None
        B, K, n = self.sizes
        environment = torch.arange(B, device=beams.device)[:, None, None]
        head = torch.arange(self.H, device=beams.device)[None, :, None]
        trunk_index = ((environment * self.H + head) * K + beams[:, None]).flatten()
        branch_index = trunk_index * n + candidates[:, None].expand(B, self.H, K).flatten()
        S, b = self.trunk_length, self.branch_length
        for index, branch in enumerate(self.branch):
            old, new = self.trunk[index], self.spare
            for i in range(2):
                if S:
                    torch.index_select(old[i, :, :S], 0, trunk_index, out=new[i, :, :S])
                new[i, :, S : S + b] = branch[i, :, :b].index_select(0, branch_index)
            self.trunk[index], self.spare = new, old
        self.trunk_length, self.branch_length = S + b, 0

    def _allocate(self, B: int, K: int, n: int) -> None:
        if self.sizes == (B, K, n):
            return
        self.sizes = (B, K, n)
        config = self.model.config
        rows, J = B * self.H * K, config.transition_dim
        empty = self.model.heads.new_empty
        # Keys and values side by side; the spare is what `select` writes a layer into before the two change places.
        self.trunk = [empty(2, rows, config.n_positions, self.d) for _ in self.model.h]
        self.branch = [empty(2, rows * n, J, self.d) for _ in self.model.h]
        self.spare = empty(2, rows, config.n_positions, self.d)

    def _encode(self, tokens: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Hidden states (rows, P, D) and each layer's keys and values (rows, H, P, d) of whole sequences."""
        hidden = self.model.embed(tokens)
        keys_values = []
        for block in self.model.h:
            q, k, v = self._project(block, hidden).unflatten(-1, (3, self.H, self.d)).permute(2, 0, 3, 1, 4)
            keys_values.append((k, v))
            attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            hidden = self._finish(block, hidden, attended.transpose(1, 2).flatten(-2))
        return hidden, keys_values

    def _forward(self, tokens: Tensor, *, branching: bool) -> Tensor:
        """Hidden states (B * K * n, D) of one new token each, tokens (B, K, n), whose keys and values are stored."""
        B, K, n = tokens.shape
        position = self.prefix_length + self.trunk_length + self.branch_length
        hidden = self.model.embed(tokens[..., None], position).view(B * K * n, self.D)
        store, at = (self.branch, self.branch_length) if branching else (self.trunk, self.trunk_length)
        for index, block in enumerate(self.model.h):
            # Head-major rows, so that the scores of the three stores lie side by side without a copy.
            qkv = self._project(block, hidden).view(B, K, n, 3, self.H, self.d).permute(3, 0, 4, 1, 2, 5)
            store[index][:, :, at].view(2, B, self.H, K, n, self.d).copy_(qkv[1:])
            q = qkv[0].reshape(-1, self.d).mul_(self.scale)
            attended = self._attend(index, q, K, n, branching)
            attended = attended.view(B, self.H, K, n, self.d).permute(0, 2, 3, 1, 4).reshape(B * K * n, self.D)
            hidden = self._finish(block, hidden, attended)
        return hidden

    def _attend(self, index: int, q: Tensor, K: int, n: int, branching: bool) -> Tensor:
        """Attention of the newest token of each row, q (B * H * K * n, d), over all three stores; same shape."""
        S = self.trunk_length + (not branching)
        b = self.branch_length + branching
        # The queries that share keys stand together: all of an environment's, all of a beam's, one candidate's.
        parts: list[tuple[Tensor, Tensor, int]] = []
        if self.prefix_length:
            parts.append((*self.prefix[index], K * n))
        if S:
            trunk_keys, trunk_values = self.trunk[index]
            parts.append((trunk_keys[:, :S], trunk_values[:, :S], n))
        if b:
            branch_keys, branch_values = self.branch[index]
            parts.append((branch_keys[:, :b], branch_values[:, :b], 1))
        rows = q.shape[0]
        scores = [torch.bmm(q.view(-1, share, self.d), keys.transpose(1, 2)).view(rows, -1) for keys, _, share in parts]
        weights = torch.cat(scores, -1).softmax(-1).split([score.shape[1] for score in scores], -1)
        attended = None
        for weight, (_, values, share) in zip(weights, parts, strict=True):
            weight = weight.reshape(-1, share, weight.shape[1])
            if attended is None:
                attended = torch.bmm(weight, values)
            else:
                attended = torch.baddbmm(attended.view(-1, share, self.d), weight, values)
        assert attended is not None
        return attended.view(rows, self.d)

    def _project(self, block: GPT2Block, hidden: Tensor) -> Tensor:
        return block.attn.c_attn(block.ln_1(hidden))

    def _finish(self, block: GPT2Block, hidden: Tensor, attended: Tensor) -> Tensor:
        """The rest of a GPT-2 block after its attention."""
        hidden = hidden + block.attn.c_proj(attended)
        return hidden + block.mlp(block.ln_2(hidden))

    def _logits(self, hidden: Tensor) -> Tensor:
        """Logits (rows, V + 1) after the newest token, from its hidden state (rows, D)."""
        position = self.prefix_length + self.trunk_length + self.branch_length - 1
        return self.model.next_logits(hidden, position)


class RecomputingDecoder:
    """Runs the whole sequence through the model for every token: slow, and plain to see right."""

    def __init__(self, model: TrajectoryTransformer):
        self.model = model

    @torch.no_grad()
    def begin(self, tokens: Tensor, beams: int, candidates: int) -> Tensor:
        """See `Decoder.begin`."""
        self.beams = tokens[:, None].expand(-1, beams, -1)
        self.branches = self._branch(candidates)
        return self.model(tokens).logits[:, -1]

    @torch.no_grad()
    def restart(self, tokens: Tensor) -> Tensor:
        """See `Decoder.restart`."""
        self.beams = tokens
        self.branches = self._branch(self.branches.shape[2])
        return self._last_logits(tokens)

    @torch.no_grad()
    def advance(self, tokens: Tensor) -> Tensor:
        """See `Decoder.advance`."""
        self.beams = torch.cat([self.beams, tokens[..., None]], -1)
        self.branches = self._branch(self.branches.shape[2])
        return self._last_logits(self.beams)

    @torch.no_grad()
    def expand(self, tokens: Tensor) -> Tensor:
        """See `Decoder.expand`."""
        self.branches = torch.cat([self.branches, tokens[..., None]], -1)
        return self._last_logits(self.branches)

    def select(self, beams: Tensor, candidates: Tensor) -> None:
        """See `Decoder.select`."""
        environment = torch.arange(len(beams), device=beams.device)[:, None]
        self.beams = self.branches[environment, beams, candidates]
        self.branches = self._branch(self.branches.shape[2])

    def _branch(self, candidates: int) -> Tensor:
        return self.beams[:, :, None].expand(-1, -1, candidates, -1)

    def _last_logits(self, tokens: Tensor) -> Tensor:
        rows = tokens.reshape(-1, tokens.shape[-1])
        return self.model(rows).logits[:, -1].unflatten(0, tokens.shape[:-1])
