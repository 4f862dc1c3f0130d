"""The search as a captured CUDA graph: on a GPU a plan is bound by kernel launches, which a replay saves."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from trajplan.cuda_graph import capture, warm_up

Output = TypeVar("Output")

WARM_UP = 2
# Each capture holds the buffers of its own decoder; context lengths differ only in an episode's first steps.
MAX_CAPTURES = 8


@dataclass(frozen=True)
class Captured:
    """A graph and the tensors that its replays read and write."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    output: object
    # Kept for the buffers it owns: replays write into them, and they lie outside the graph's own memory.
    function: Callable[..., object]


class GraphedFunction:
    """Captures a function of tensors once per shape of its inputs and replays it.

    Batches are padded to a power of two, so that environments which finish one by one do not each cost a capture; the
    `MAX_CAPTURES` shapes used last are kept.

    Args:
        make: returns a fresh function that takes the tensors and returns a dataclass of tensors, reads no tensor's
            value on the host and keeps its buffers to itself: one is made for each captured shape.
    """

    def __init__(self, make: Callable[[], Callable[..., Output]]):
        self.make = make
        self.captured: dict[tuple[torch.Size, ...], Captured] = {}

    def __call__(self, *inputs: Tensor) -> object:
        """The function's output for `inputs`, all of them (B, ...), in tensors of the caller's own."""
        batch = len(inputs[0])
        padded = [pad_batch(value) for value in inputs]
        shapes = tuple(value.shape for value in padded)
        captured = self.captured.pop(shapes, None) or self._capture(padded)
        self.captured[shapes] = captured
        if len(self.captured) > MAX_CAPTURES:
            del self.captured[next(iter(self.captured))]
        for buffer, value in zip(captured.inputs, padded, strict=True):
            buffer.copy_(value)
        captured.graph.replay()
        output = captured.output
        return type(output)(**{name: value[:batch].clone() for name, value in vars(output).items()})

    def _capture(self, inputs: list[Tensor]) -> Captured:
        function, buffers = self.make(), [value.clone() for value in inputs]
        for _ in range(WARM_UP):
            warm_up(lambda: function(*buffers))
        graph, output = capture(lambda: function(*buffers))
        return Captured(graph, buffers, output, function)


def pad_batch(value: Tensor) -> Tensor:
    """`value` (B, ...) with its first row repeated until B is a power of two."""
    missing = (1 << (len(value) - 1).bit_length()) - len(value)
    return torch.cat([value, value[:1].expand(missing, *value.shape[1:])]) if missing else value
