"""What the data's policies do next, and what they then earn: the prior of MBOP (Argenson, Dulac-Arnold 2021).

Every member is two networks of an observation and the action before it, so that cloned actions go on smoothly: the
action that follows (section 3.2.2 there), and the sum of the next H rewards under the data's policies (3.2.3).

Shapes: M members, B batch, S observation_dim, A action_dim, I = S + A inputs, A + 1 targets (the action, then the sum).
Observations and rewards are in the environment's units, actions in [-1, 1].
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from trajplan.models.networks import EnsembleMLP

SMALLEST_STD = 1e-6


class BehaviourPrior(nn.Module):
    """M cloned policies and M values of what they do, and which K of them are the elites.

    Args:
        observation_dim, action_dim: S and A.
        members, elites: M and K; until elites are chosen they are the first ones.
        hidden: widths of the hidden layers.
        steps: H, whose rewards the values count.
    """

    input_mean: Tensor
    input_std: Tensor
    value_mean: Tensor
    value_std: Tensor
    elites: Tensor

    def __init__(
        self, observation_dim: int, action_dim: int, members: int, elites: int, hidden: tuple[int, ...], steps: int
    ) -> None:
        super().__init__()
        inputs = observation_dim + action_dim
        self.steps = steps
        self.policies = EnsembleMLP(members, inputs, hidden, action_dim, functional.silu)
        self.critics = EnsembleMLP(members, inputs, hidden, 1, functional.silu)
        for name, size in (("input", inputs), ("value", 1)):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_std", torch.ones(size))
        self.register_buffer("elites", torch.arange(elites))

    @torch.no_grad()
    def fit_scales(self, inputs: Tensor, targets: Tensor) -> None:
        """Take the scales of inputs (N, I) and of the sums of rewards in targets (N, A + 1)."""
        for name, values in (("input", inputs), ("value", targets[:, -1:])):
            getattr(self, f"{name}_mean").copy_(values.double().mean(0))
            getattr(self, f"{name}_std").copy_(values.double().std(0, correction=0))
        self.input_std[self.input_std < SMALLEST_STD] = 1
        self.value_std.clamp_(min=SMALLEST_STD)

    def actions(self, observations: Tensor, before: Tensor, chosen: Tensor | None = None) -> Tensor:
        """What members do, (M, B, A) in [-1, 1]: at (B, S) after actions (B, A), or each at its own (M, B, ...)."""
        return self.policies(self._scaled(observations, before), chosen).clamp(-1, 1)

    def values(self, observations: Tensor, before: Tensor, chosen: Tensor | None = None) -> Tensor:
        """What members expect of the next H rewards, (M, B), arguments as for `actions`."""
        values = self.critics(self._scaled(observations, before), chosen)
        return (self.value_mean + values * self.value_std)[..., 0]

    def losses(self, inputs: Tensor, targets: Tensor, terminations: Tensor) -> Tensor:
        """The members' squared errors (M,), of actions and of standardised sums, each a mean over its dimensions.

        Args:
            inputs: (M, B, I), or (B, I), the same for all members.
            targets: (M, B, A + 1), or (B, A + 1).
            terminations: not read.
        """
        scaled = (inputs - self.input_mean) / self.input_std
        wanted = (targets[..., -1:] - self.value_mean) / self.value_std
        actions = (self.policies(scaled) - targets[..., :-1]).square().mean((1, 2))
        return actions + (self.critics(scaled) - wanted).square().mean((1, 2))

    def held_out_losses(self, inputs: Tensor, targets: Tensor, terminations: Tensor) -> Tensor:
        """What training stops by, (M,): the same."""
        return self.losses(inputs, targets, terminations)

    def parameter_groups(self) -> list[dict[str, object]]:
        """The parameters for an optimiser."""
        return [{"params": list(self.parameters())}]

    def _scaled(self, observations: Tensor, before: Tensor) -> Tensor:
        return (torch.cat([observations, before], dim=-1) - self.input_mean) / self.input_std
