"""What the trainer asks of a method, and what a user sees of a method's settings.

A method is a module with its networks (policy, critics, targets) and the optimisers of these. It sees observations
standardised, continuous actions in [-1, 1] and rewards transformed, all by the trainer, once.

A method with a `policy` that is to learn in a model of the dynamics needs no more than settings that extend
`ModelBasedConfig`: the trainer then learns the model first, and its batches are data and rollouts of the policy.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from trajplan.data.transitions import Batch
from trajplan.models.seeds import in_place

Metrics = dict[str, Tensor]


class Learner(Protocol):
    """What is updated.

    Attributes:
        optimizers: by the name of what they train.
        needs_goals: whether `act` takes goals (B, G) too, standardised as an observation's columns are; not needed
            where it does not.
        cosine: those of them whose learning rate falls to 0 along half a cosine during the run.
    """

    optimizers: dict[str, torch.optim.Adam]
    cosine: tuple[str, ...]

    def update(self, batch: Batch) -> Metrics:
        """One step of every optimiser on a batch, which is left as it is; gives metrics, tensors without shape."""


class Method(Learner, Protocol):
    """A method of offline reinforcement learning; every one is also a `torch.nn.Module`."""

    def act(self, observations: Tensor) -> Tensor:
        """(B, S) standardised observations to (B, A) actions in [-1, 1], or to an index, without exploration."""

    def train(self, mode: bool = True) -> Any:
        """Whether the networks are trained now or only asked, for those with dropout."""

    def state_dict(self) -> Mapping[str, Tensor]:
        """Everything that an update changes but the optimisers' states."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """The inverse of `state_dict`."""


def step(loss: Tensor, *optimizers: torch.optim.Optimizer) -> None:
    """One step of each optimiser along the gradient of a loss (a sum of losses where they share no parameters)."""
    # Gradients of what is not stepped, such as a policy's loss in the critic, are not worked out.
    inputs = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]

    def take(loss: Tensor) -> None:
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward(torch.ones_like(loss), inputs=inputs)
        for optimizer in optimizers:
            optimizer.step()

    in_place(take, loss)
