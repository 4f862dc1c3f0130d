"""Keys and values of a tree of token sequences: a node holds those of its own tokens, its path those of the others.

Shapes: B environments, K nodes an environment, N nodes in all, L tokens, H heads, d width of a head, V bins.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


class Rows:
    """A tensor (N, ...) that rows are appended to. It grows by doubling, so its memory is linear in N."""

    def __init__(self) -> None:
        self.count = 0
        self.data: Tensor

    def append(self, rows: Tensor) -> None:
        """Add `rows` (M, ...)."""
        end = self.count + len(rows)
        if not self.count or end > len(self.data):
            grown = rows.new_empty(max(end, 2 * self.count), *rows.shape[1:])
            if self.count:
                grown[: self.count] = self.data[: self.count]
            self.data = grown
        self.data[self.count : end] = rows
        self.count = end


@dataclass(frozen=True)
class Paths:
    """Where the paths of some nodes lie.

    Attributes:
        slots: (B, K, L) indices into the stored tokens, the newest last, L being the longest path's length. A shorter
            path begins with indices of no meaning.
        lengths: (B, K) of the paths.
        prefixed: (B, K) whether a path goes on from the environment's prefix, or begins at position 0.
        logits: (B, K, V + 1) of the token after each path.
    """

    slots: Tensor
    lengths: Tensor
    prefixed: Tensor
    logits: Tensor


class CacheTree:
    """The nodes of a batch of environments.

    Args:
        layers: of the model.
        positions: that a sequence can have at most.
    """

    def __init__(self, layers: int, positions: int):
        self.positions = positions
        self.layers = [Rows() for _ in range(layers)]
        self.slots, self.lengths, self.prefixed, self.environments, self.logits = (Rows() for _ in range(5))

    def add(self, parents: Tensor | None, prefixed: bool, own: int, logits: Tensor) -> Tensor:
        """Number new nodes; the keys and values of their own tokens are to be added with `store`, layer by layer.

        Args:
            parents: (B, K) nodes, or None for the first of their paths.
            prefixed: whether paths without a parent go on from the prefix.
            own: L, tokens of each new node that its parent does not have.
            logits: (B, K, V + 1) of the token after each.

        Returns:
            (B, K) int64.
        """
        B, K, _ = logits.shape
        device, first = logits.device, self.lengths.count
        tokens = self.layers[0].count + torch.arange(B * K * own, device=device, dtype=torch.int32).view(B * K, own)
        if parents is None:
            slots = tokens.new_zeros(B * K, self.positions)
            lengths = torch.zeros(B * K, dtype=torch.int64, device=device)
            from_prefix = torch.full((B * K,), prefixed, device=device)
        else:
            rows = parents.flatten()
            slots, lengths, from_prefix = (store.data[rows] for store in (self.slots, self.lengths, self.prefixed))
        self.slots.append(torch.cat([slots[:, own:], tokens], 1))
        self.lengths.append(lengths + own)
        self.prefixed.append(from_prefix)
        self.environments.append(torch.arange(B, device=device).repeat_interleave(K))
        self.logits.append(logits.flatten(0, 1))
        return torch.arange(first, first + B * K, device=device).view(B, K)

    def store(self, layer: int, keys_values: Tensor) -> None:
        """Add a layer's keys and values (2, B, H, K, L, d) of new nodes' own tokens."""
        self.layers[layer].append(keys_values.permute(1, 3, 4, 0, 2, 5).flatten(0, 2))

    def paths(self, nodes: Tensor) -> Paths:
        """The paths of `nodes` (B, K); raises ValueError for a node that its row's environment does not have."""
        known = (nodes >= 0) & (nodes < self.lengths.count)
        if (
            not known.all()
            or (self.environments.data[nodes] != torch.arange(len(nodes), device=nodes.device)[:, None]).any()
        ):
            raise ValueError("these nodes were kept before the last begin, or for another environment of the batch.")
        lengths = self.lengths.data[nodes]
        longest = int(lengths.max())
        slots = self.slots.data[nodes][..., self.positions - longest :]
        return Paths(slots, lengths, self.prefixed.data[nodes], self.logits.data[nodes])

    def gather(self, layer: int, slots: Tensor) -> Tensor:
        """A layer's keys and values (2, B, H, K, L, d) of `slots` (B, K, L)."""
        rows = self.layers[layer].data.index_select(0, slots.flatten())
        return rows.unflatten(0, slots.shape).permute(3, 0, 4, 1, 2, 5)
