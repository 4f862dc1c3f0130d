"""Incremental decoding of a Trajectory Transformer for many beams or a tree, each token computed once.

Shapes: B environments, K beams an environment, n candidates a beam, H heads, d width of a head, D = H * d, V bins,
J tokens a transition. A candidate's tokens live in one of three stores:

- the prefix, encoded once per environment and read by all of its beams: (B * H, G + P, d), a goal's G tokens first;
- the trunk, a beam's own tokens, read by all of its candidates: (B * H * K, window * J, d), preallocated;
- the branch, what a candidate has added since the last `select`: (B * H * K * n, J, d), preallocated.

What `keep` remembers lies in a `CacheTree`, from which `resume` copies whole paths into the trunk.
"""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.gpt2.modeling_gpt2 import GPT2Block

from trajplan.models.cache_tree import CacheTree
from trajplan.models.trajectory_transformer import TrajectoryTransformer


class Decoder(Protocol):
    """What a planner asks of a decoder; `CachedDecoder` and `RecomputingDecoder` give the same logits.

    A beam search begins, then expands, selects and advances. A search over a tree keeps beams as nodes and resumes
    any of them, in batches of any size, as often as it likes.
    """

    def begin(self, tokens: Tensor, beams: int, candidates: int) -> Tensor:
        """Encode what all beams of an environment share, tokens (B, G + P); logits (B, V + 1) of the next token.

        The first G tokens are the goal's, of a model that reads goals; all that follows sees them, also after a
        `restart`. Forgets all nodes.
        """
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
        """Encode every beam anew from position 0, tokens (B, K, P); logits (B, K, V + 1). Nodes stay."""
        ...

    def keep(self) -> Tensor:
        """Remember every beam as it stands: the numbers (B, K) of new nodes. Not while a branch is open.

        A node costs memory for the tokens that its beam has got since it was last kept or resumed, no others.
        """
        ...

    def resume(self, nodes: Tensor) -> Tensor:
        """Make nodes (B, K) of the same environments the beams, K of any size; their next logits (B, K, V + 1).

        Their lengths may differ by whole transitions, also where one was kept before a `restart` and another after it.
        """
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
        self.G = model.config.goal_dim
        self.prefix_length = self.trunk_length = self.branch_length = self.kept_length = self.lag = 0
        self.newest: Tensor
        # The nodes that the beams have come from; of nodes of unlike lengths also how many tokens each is behind and
        # the columns that each does not see.
        self.nodes: Tensor | None
        self.behind: Tensor | None
        self.unseen: Tensor | None

    @torch.no_grad()
    def begin(self, tokens: Tensor, beams: int, candidates: int) -> Tensor:
        """See `Decoder.begin`."""
        self._allocate(tokens.shape[0], beams, candidates)
        self.goals = tokens[:, : self.G]
        hidden, keys_values = self._encode(tokens[:, self.G :])
        self.prefix = [(k.flatten(0, 1), v.flatten(0, 1)) for k, v in keys_values]
        self.begun_length = tokens.shape[1] - self.G
        self.tree = CacheTree(len(self.model.h), self.model.config.n_positions)
        self._stand(self.begun_length, 0)
        logits = self._logits(hidden[:, -1])
        self.newest = logits[:, None].expand(-1, beams, -1)
        return logits

    @torch.no_grad()
    def restart(self, tokens: Tensor) -> Tensor:
        """See `Decoder.restart`."""
        B, K, P = tokens.shape
        self._allocate(B, K, self.candidates)
        hidden, keys_values = self._encode(tokens.flatten(0, 1))
        for store, pair in zip(self.trunk, keys_values, strict=True):
            for i in range(2):
                own = pair[i][:, :, self.G :]
                store[i, :, :P].view(B, self.H, K, P, self.d).copy_(own.unflatten(0, (B, K)).transpose(1, 2))
        self._stand(0, P)
        self.newest = self._logits(hidden[:, -1]).unflatten(0, (B, K))
        return self.newest

    @torch.no_grad()
    def keep(self) -> Tensor:
        """See `Decoder.keep`."""
        assert self.sizes is not None
        assert self.branch_length == 0, "select closes the branch"
        B, K, _ = self.sizes
        own = slice(self.kept_length, self.trunk_length)
        self.nodes = self.tree.add(self.nodes, self.prefix_length > 0, own.stop - own.start, self.newest)
        for index, store in enumerate(self.trunk):
            self.tree.store(index, store[:, :, own].unflatten(1, (B, self.H, K)))
        self.kept_length = self.trunk_length
        return self.nodes

    @torch.no_grad()
    def resume(self, nodes: Tensor) -> Tensor:
        """See `Decoder.resume`; it waits for the device, to learn the nodes' lengths."""
        B, K = nodes.shape
        paths = self.tree.paths(nodes)
        S, P = paths.slots.shape[-1], self.begun_length if paths.prefixed.any() else 0
        ends = paths.lengths + paths.prefixed * P
        J = self.model.config.transition_dim
        if ((ends - ends[:1, :1]) % J).any():
            raise ValueError(f"the lengths of these nodes differ by other than whole transitions of {J} tokens.")
        self._allocate(B, K, self.candidates)
        self._stand(P, S)
        for index, store in enumerate(self.trunk):
            store[:, :, :S].unflatten(1, (B, self.H, K)).copy_(self.tree.gather(index, paths.slots))
        self.nodes, self.kept_length, self.newest = nodes, S, paths.logits
        if (ends != P + S).any():
            # All paths end in the same column; a row does not see those before its path begins.
            self.behind, self.lag = P + S - ends, int(P + S - ends[0, 0])
            # The goal is seen by all.
            no_prefix = F.pad(~paths.prefixed[..., None].expand(B, K, P), (self.G, 0))
            before = torch.arange(S, device=nodes.device) < (S - paths.lengths)[..., None]
            self.unseen = torch.cat([no_prefix, before], -1)
        return self.newest

    @torch.no_grad()
    def advance(self, tokens: Tensor) -> Tensor:
        """See `Decoder.advance`."""
        hidden = self._forward(tokens[:, :, None], branching=False)
        self.trunk_length += 1
        self.newest = self._logits(hidden).unflatten(0, tokens.shape)
        return self.newest

    @torch.no_grad()
    def expand(self, tokens: Tensor) -> Tensor:
        """See `Decoder.expand`."""
        hidden = self._forward(tokens, branching=True)
        self.branch_length += 1
        self.newest = self._logits(hidden).unflatten(0, tokens.shape)
        return self.newest

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
        row = torch.arange(B, device=beams.device)[:, None]
        self.newest = self.newest[row, beams, candidates] if b else self.newest[row, beams]
        if self.nodes is not None:
            self.nodes = self.nodes[row, beams]
        if self.behind is not None and self.unseen is not None:
            self.behind, self.unseen = self.behind[row, beams], self.unseen[row, beams]

    def _stand(self, prefix: int, trunk: int) -> None:
        """Be where all beams have read this many tokens of the two stores, and none of them is a node."""
        self.prefix_length, self.trunk_length, self.branch_length, self.kept_length = prefix, trunk, 0, 0
        self.nodes = self.behind = self.unseen = None
        self.lag = 0

    def _allocate(self, B: int, K: int, n: int) -> None:
        if self.sizes == (B, K, n):
            return
        self.sizes, self.candidates = (B, K, n), n
        config = self.model.config
        rows, J = B * self.H * K, config.transition_dim
        empty = self.model.heads.new_empty
        # Keys and values side by side; the spare is what `select` writes a layer into before the two change places.
        self.trunk = [empty(2, rows, config.n_positions, self.d) for _ in self.model.h]
        self.branch = [empty(2, rows * n, J, self.d) for _ in self.model.h]
        self.spare = empty(2, rows, config.n_positions, self.d)

    def _encode(self, tokens: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Hidden states (rows, G + P, D) and each layer's keys and values (rows, H, G + P, d) of whole sequences.

        Their tokens are (rows, P), the goal's left out; each environment has equally many rows.
        """
        hidden = self.model.embed(tokens)
        if self.G:
            goals = self.goals.repeat_interleave(len(tokens) // len(self.goals), 0)
            hidden = torch.cat([self.model.embed_goals(goals), hidden], 1)
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
        position: int | Tensor = self.prefix_length + self.trunk_length + self.branch_length
        if self.behind is not None:
            position = position - self.behind[:, :, None, None]
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
        if P := self.G + self.prefix_length:
            prefix_keys, prefix_values = self.prefix[index]
            parts.append((prefix_keys[:, :P], prefix_values[:, :P], K * n))
        if S:
            trunk_keys, trunk_values = self.trunk[index]
            parts.append((trunk_keys[:, :S], trunk_values[:, :S], n))
        if b:
            branch_keys, branch_values = self.branch[index]
            parts.append((branch_keys[:, :b], branch_values[:, :b], 1))
        rows = q.shape[0]
        scores = [torch.bmm(q.view(-1, share, self.d), keys.transpose(1, 2)).view(rows, -1) for keys, _, share in parts]
        joined = torch.cat(scores, -1)
        if self.unseen is not None:
            unseen = self.unseen[:, None, :, None]
            joined[:, : unseen.shape[-1]].view(-1, self.H, K, n, unseen.shape[-1]).masked_fill_(unseen, float("-inf"))
        weights = joined.softmax(-1).split([score.shape[1] for score in scores], -1)
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
        position = self.prefix_length + self.trunk_length + self.branch_length - 1 - self.lag
        return self.model.next_logits(hidden, position)
