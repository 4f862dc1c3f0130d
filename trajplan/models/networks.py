"""Multi-layer perceptrons for vectors of any size, one or several at once, and what their training shares.

Shapes: B batch, S observation_dim, A action_dim, M members.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from trajplan.data.info import DatasetInfo
from trajplan.models.seeds import batched_product, in_place, linear

# Rows whose activations in a layer of the usual width fit into the cache of one core.
CACHED_ROWS = 1024


@dataclass(frozen=True)
class Dimensions:
    """What networks are sized by.

    Attributes:
        observation_dim: S.
        action_dim: A; 1 for Discrete actions.
        num_actions: number of Discrete actions; None for continuous ones.
        goal_dim: numbers that a goal holds; None where the dataset knows no goals.
    """

    observation_dim: int
    action_dim: int
    num_actions: int | None = None
    goal_dim: int | None = None

    @classmethod
    def of(cls, info: DatasetInfo) -> "Dimensions":
        """Those of a dataset."""
        goal_dim = None if info.goal_columns is None else len(info.goal_columns)
        return cls(info.observation_dim, info.action_dim, info.num_actions, goal_dim)

    @property
    def with_goal(self) -> "Dimensions":
        """Those of networks that see an observation and a goal side by side."""
        return replace(self, observation_dim=self.observation_dim + (self.goal_dim or 0))


def mlp(inputs: int, hidden: tuple[int, ...], outputs: int, dropout: float = 0.0) -> nn.Sequential:
    """Linear layers with ReLU, and dropout if asked for, between them: (..., inputs) -> (..., outputs)."""
    layers: list[nn.Module] = []
    sizes = (inputs, *hidden)
    for before, after in pairwise(sizes):
        layer = HiddenLinear(before, after) if layers else Linear(before, after)
        layers += [layer, nn.ReLU(inplace=True), *([nn.Dropout(dropout)] if dropout else [])]
    return nn.Sequential(*layers, LastLinear(sizes[-1], outputs))


def learn_in_bf16(module: nn.Module) -> None:
    """Let the networks in `module` compute the products between hidden layers in bfloat16 while they learn.

    The weights stay in float32, and so do the first and the last layer: of values in the hundreds bfloat16 keeps no
    decimals.
    """
    for part in module.modules():
        if isinstance(part, HiddenLinear | EnsembleMLP):
            part.bf16 = True


def bf16_product(product: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """`product(*tensors)`, computed in bfloat16 and given in it."""
    return product(*(tensor.bfloat16() for tensor in tensors))


class Linear(nn.Linear):
    """torch's, whose product is one for all seeds that are computed together."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        return linear(x, self.weight, self.bias)


class HiddenLinear(Linear):
    """A linear layer between hidden layers, see `learn_in_bf16`."""

    bf16 = False

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs), in bfloat16 where it learns in it."""
        if self.bf16 and self.training:
            return bf16_product(linear, x, self.weight, self.bias)
        return super().forward(x)


class LastLinear(Linear):
    """A linear layer after hidden ones, in its weights' type whatever these gave."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        return super().forward(x.to(self.weight.dtype))


class EnsembleMLP(nn.Module):
    """M perceptrons of one shape and their own weights, in one batched product a layer.

    Args:
        members: M.
        inputs, hidden, outputs: as for `mlp`; every member starts as `torch.nn.Linear` layers would.
        activation: between the layers; may work in place.
    """

    def __init__(
        self,
        members: int,
        inputs: int,
        hidden: tuple[int, ...],
        outputs: int,
        activation: Callable[[Tensor], Tensor] = torch.relu_,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.bf16 = False
        sizes = (inputs, *hidden, outputs)
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for before, after in pairwise(sizes):
            bound = 1 / math.sqrt(before)
            self.weights.append(torch.empty(members, before, after).uniform_(-bound, bound))
            self.biases.append(torch.empty(members, 1, after).uniform_(-bound, bound))

    def forward(self, x: Tensor, chosen: Tensor | None = None) -> Tensor:
        """(B, inputs), the same for all members, or (M, B, inputs), to (M, B, outputs).

        With `chosen` (K,) int64, only these members are asked, and M is K.
        """
        weights, biases = list(self.weights), list(self.biases)
        if chosen is not None:
            weights, biases = [weight[chosen] for weight in weights], [bias[chosen] for bias in biases]
        x = x.expand(len(weights[0]), *x.shape[-2:])
        if x.device.type != "cpu" or x.shape[-2] <= CACHED_ROWS:
            return self._layers(batched_product, weights, biases, x)
        # One member and few rows at a time, so that the activations of a layer are in the cache for the next one.
        biases = [bias.squeeze(1) for bias in biases]
        outputs = []
        for weight, bias, rows in zip(zip(*weights, strict=True), zip(*biases, strict=True), x, strict=True):
            blocks = [self._layers(torch.addmm, weight, bias, block) for block in rows.split(CACHED_ROWS)]
            outputs.append(torch.cat(blocks))
        return torch.stack(outputs)

    def _layers(
        self, product: Callable[..., Tensor], weights: Sequence[Tensor], biases: Sequence[Tensor], x: Tensor
    ) -> Tensor:
        last, narrow = len(weights) - 1, self.bf16 and self.training
        x = product(biases[0], x, weights[0])
        for number, (weight, bias) in enumerate(zip(weights[1:], biases[1:], strict=True), 1):
            x = self.activation(x)
            hidden = narrow and number < last
            x = bf16_product(product, bias, x, weight) if hidden else product(bias, x.to(weight.dtype), weight)
        return x


@torch.no_grad()
def start_orthogonal(network: EnsembleMLP) -> None:
    """Give hidden layers orthogonal weights of gain sqrt(2), the last layer such of gain 0.01, and all biases 0."""
    for index, (weights, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        bias.zero_()
        for weight in weights:
            nn.init.orthogonal_(weight, 0.01 if index == len(network.weights) - 1 else math.sqrt(2))


@torch.no_grad()
def start_near_zero(network: nn.Sequential) -> None:
    """Make the last layer's weights a hundredth of what Glorot and Bengio (2010) draw, and its biases 0."""
    last = network[-1]
    assert isinstance(last, nn.Linear)
    nn.init.xavier_uniform_(last.weight, 0.01)
    last.bias.zero_()


@torch.no_grad()
def polyak_update(target: nn.Module, source: nn.Module, rate: float) -> None:
    """Move every parameter of `target` by the share `rate` towards that of `source`."""
    targets, sources = list(target.parameters()), list(source.parameters())

    def move(*tensors: Tensor) -> None:
        torch._foreach_lerp_(tensors[: len(targets)], tensors[len(targets) :], rate)

    in_place(move, *targets, *sources)


def adam(parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Adam:
    """Adam in its fused form, which CPUs and GPUs both have: one call updates all parameters."""
    return torch.optim.Adam(list(parameters), lr=learning_rate, fused=True)
