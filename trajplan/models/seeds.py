"""Several seeds of a method at once, while its file says what one seed does.

Under `torch.func.vmap` code sees the tensors of one seed and computes those of all, stacked along a first axis. Two
things cannot be said for one seed, and are done here: what changes the stacks in place, such as an optimiser's step,
and random numbers, which every seed draws from its own generator. Products could be, but `vmap` takes them apart into
more operations than they need. Of one seed alone all of these are what they look like.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

# Those of the seeds that are computed together, in their order.
_generators: list[torch.Generator] = []


@contextmanager
def seeds_together(generators: Sequence[torch.Generator]) -> Iterator[None]:
    """Within it, what runs under `vmap` is computed for the seeds whose generators these are."""
    _generators.extend(generators)
    try:
        yield
    finally:
        _generators.clear()


def drawn(draw: Callable[[Tensor, torch.Generator | None], Tensor], like: Tensor) -> Tensor:
    """`draw(like, generator)`, of one seed's tensor and with its generator (None: torch's default one)."""
    if not _generators:
        return draw(like, None)

    def of_all(stack: Tensor) -> Tensor:
        pairs = zip(stack, _generators, strict=True)
        return torch.stack([draw(part, generator) for part, generator in pairs])

    return _OnStacks.apply(of_all, like)


def in_place(change: Callable[..., None], *tensors: Tensor) -> None:
    """`change(*tensors)`, which changes tensors in place, entry by entry; it is given the stacks of all seeds."""
    if not _generators:
        change(*tensors)
        return

    def of_all(*stacks: Tensor) -> Tensor:
        change(*stacks)
        return stacks[0].detach()

    _OnStacks.apply(of_all, *tensors)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`torch.nn.functional.linear`, that of all seeds in one batched product."""
    if not _generators:
        return functional.linear(x, weight, bias)

    def of_all(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y = torch.baddbmm(bias[:, None], x.flatten(1, -2), weight.mT)
        return y if x.ndim == 3 else y.unflatten(1, x.shape[1:-1])

    return _OnStacks.apply(of_all, x, weight, bias)


def batched_product(bias: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """`torch.baddbmm`, the batches of all seeds in one."""
    if not _generators:
        return torch.baddbmm(bias, x, weight)

    # Not one `baddbmm` and a view of it: activations work in place, which costs copies on views.
    return _OnStacks.apply(lambda bias, x, weight: x @ weight + bias, bias, x, weight)


class _OnStacks(torch.autograd.Function):
    """Leaves `vmap` for the call of a function, which gets the stacks and gives one back."""

    @staticmethod
    def forward(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        raise AssertionError("seeds that are computed together are computed under vmap")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept: gradients flow through what the function does itself."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], function: Callable[..., Tensor], *tensors: Tensor) -> Any:
        stacks = [
            tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            for tensor, dim in zip(tensors, in_dims[1:], strict=True)
        ]
        return function(*stacks), 0
