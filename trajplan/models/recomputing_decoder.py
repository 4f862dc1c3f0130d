"""Decoding of a Trajectory Transformer without caches: what `CachedDecoder` is held to.

Shapes: B environments, K beams an environment, n candidates a beam, L tokens, V bins.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from trajplan.models.trajectory_transformer import TrajectoryTransformer


class RecomputingDecoder:
    """Runs the whole sequence through the model for every token: slow, and plain to see right.

    Sequences of unlike lengths stand at the right of one tensor, `missing` (B, K) places from its left.
    """

    def __init__(self, model: TrajectoryTransformer):
        self.model = model
        self.branches: Tensor

    @torch.no_grad()
    def begin(self, tokens: Tensor, beams: int, candidates: int) -> Tensor:
        """See `Decoder.begin`."""
        self.candidates = candidates
        self.kept: list[tuple[int, Tensor]] = []
        G = self.model.config.goal_dim
        self.goals, tokens = tokens[:, :G], tokens[:, G:]
        self._hold(tokens[:, None].expand(-1, beams, -1))
        return self._logits(tokens, self.goals)

    @torch.no_grad()
    def restart(self, tokens: Tensor) -> Tensor:
        """See `Decoder.restart`."""
        self._hold(tokens)
        return self._last_logits(tokens)

    @torch.no_grad()
    def advance(self, tokens: Tensor) -> Tensor:
        """See `Decoder.advance`."""
        self._hold(torch.cat([self.beams, tokens[..., None]], -1), self.missing)
        return self._last_logits(self.beams)

    @torch.no_grad()
    def expand(self, tokens: Tensor) -> Tensor:
        """See `Decoder.expand`."""
        self.branches = torch.cat([self.branches, tokens[..., None]], -1)
        return self._last_logits(self.branches)

    def select(self, beams: Tensor, candidates: Tensor) -> None:
        """See `Decoder.select`."""
        row = torch.arange(len(beams), device=beams.device)[:, None]
        self._hold(self.branches[row, beams, candidates], self.missing[row, beams])

    def keep(self) -> Tensor:
        """See `Decoder.keep`."""
        first = len(self.kept)
        for row, (beams, missing) in enumerate(zip(self.beams, self.missing.tolist(), strict=True)):
            self.kept += [(row, beam[start:]) for beam, start in zip(beams, missing, strict=True)]
        return torch.arange(first, len(self.kept), device=self.beams.device).view_as(self.missing)

    @torch.no_grad()
    def resume(self, nodes: Tensor) -> Tensor:
        """See `Decoder.resume`."""
        kept = [self.kept[node] for node in nodes.flatten().tolist()]
        longest = max(len(tokens) for _, tokens in kept)
        missing = torch.tensor([longest - len(tokens) for _, tokens in kept], device=nodes.device).view(nodes.shape)
        if [row for row, _ in kept] != [row for row in range(len(nodes)) for _ in nodes[0]]:
            raise ValueError("these nodes were kept for another environment of the batch.")
        if ((missing - missing[0, 0]) % self.model.config.transition_dim).any():
            raise ValueError("the lengths of these nodes differ by other than whole transitions.")
        padded = torch.stack([F.pad(tokens, (longest - len(tokens), 0)) for _, tokens in kept])
        self._hold(padded.view(*nodes.shape, -1), missing)
        return self._last_logits(self.beams)

    def _hold(self, beams: Tensor, missing: Tensor | None = None) -> None:
        """Let `beams` (B, K, L) be the beams, and no branch be open."""
        self.beams = beams
        self.missing = beams.new_zeros(beams.shape[:2]) if missing is None else missing
        self.branches = beams[:, :, None].expand(-1, -1, self.candidates, -1)

    def _last_logits(self, tokens: Tensor) -> Tensor:
        """Logits (..., V + 1) of what follows tokens (B, K, L) or (B, K, n, L)."""
        missing = self.missing.view(*self.missing.shape, *[1] * (tokens.dim() - 3)).expand(tokens.shape[:-1]).flatten()
        rows = tokens.flatten(0, -2)
        goals = self.goals.repeat_interleave(len(rows) // len(tokens), 0)
        # All sequences of one length together, then back in their places.
        parts = [(missing == start, start) for start in missing.unique().tolist()]
        logits = [self._logits(rows[chosen, start:], goals[chosen]) for chosen, start in parts]
        places = missing.argsort(stable=True).argsort()
        return torch.cat(logits)[places].unflatten(0, tokens.shape[:-1])

    def _logits(self, tokens: Tensor, goals: Tensor) -> Tensor:
        """Logits (rows, V + 1) of what follows tokens (rows, L) on the way to goals (rows, G)."""
        known = {"goals": goals} if goals.shape[1] else {}
        return self.model(tokens, **known).logits[:, -1]
