"""Quasimetrics: distances d(s, g) that obey the triangle inequality but need not be symmetric.

Shapes: B batch, S observation_dim, Z latents.
"""

import math

import torch
from torch import Tensor, nn

from trajplan.models.critics import normalised_gelu
from trajplan.models.networks import EnsembleMLP


class Quasimetric(nn.Module):
    """The steps from one state to another, from what an encoder makes of both.

    d(s, g) is the mean over groups of latents of max_i relu(z_i(s) - z_i(g)), the asymmetric part of a metric residual
    network (Liu et al. 2023). Each term is 0 where s = g and obeys the triangle inequality, and so does their mean.

    Args:
        observation_dim: S.
        hidden: widths of the encoder's layers.
        latents: Z, in groups of 16 or fewer.
        frequencies: octaves of sine and cosine that the encoder sees of each (standardised) dimension besides itself.
        scale: what latents are multiplied by, so that weights of the usual size make distances of many steps.
    """

    def __init__(
        self, observation_dim: int, hidden: tuple[int, ...], latents: int, frequencies: int, scale: float
    ) -> None:
        super().__init__()
        self.frequencies, self.scale = frequencies, scale
        self.group = min(16, latents)
        width = observation_dim * (1 + 2 * frequencies)
        self.encoder = EnsembleMLP(1, width, hidden[:-1], hidden[-1], normalised_gelu)
        # Without a bias, which no distance would depend on.
        self.head = nn.Linear(hidden[-1], latents, bias=False)

    def latents(self, states: Tensor) -> Tensor:
        """(B, S) -> (B, Z)."""
        if self.frequencies:
            # A period of 4 standard deviations, and its halves.
            octaves = 0.5 * math.pi * 2.0 ** torch.arange(self.frequencies, device=states.device)
            angles = (states[..., None] * octaves.to(states.dtype)).flatten(-2)
            states = torch.cat([states, angles.sin(), angles.cos()], -1)
        return self.scale * self.head(normalised_gelu(self.encoder(states).squeeze(0)))

    def between(self, latents: Tensor, others: Tensor) -> Tensor:
        """Distances from the states of (..., Z) to those of (..., Z), which broadcast: (...)."""
        return (latents - others).unflatten(-1, (-1, self.group)).amax(-1).relu().mean(-1)

    def forward(self, states: Tensor, goals: Tensor) -> Tensor:
        """Distances from states (B, S) to goals (B, S): (B,)."""
        latents, others = self.latents(torch.cat([states, goals])).split(len(states))
        return self.between(latents, others)
