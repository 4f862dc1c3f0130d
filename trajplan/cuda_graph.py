"""CUDA graphs: work of many small kernels is bound by their launches, which a replay saves."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

Output = TypeVar("Output")


def warm_up(function: Callable[[], Output]) -> Output:
    """The function's output, computed on a side stream, as CUDA asks for before a capture.

    A graph cannot hold what first calls allocate: the libraries' workspaces, the moments of optimisers.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        output = function()
    torch.cuda.current_stream().wait_stream(stream)
    return output


def capture(
    function: Callable[[], Output], generators: Sequence[torch.Generator] = ()
) -> tuple[torch.cuda.CUDAGraph, Output]:
    """A graph of the function, which is recorded but not run, and its output, which every replay overwrites.

    Args:
        function: what is captured.
        generators: those that it draws from, besides the device's default one.
    """
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        # Every replay then draws on from where the last one, or a draw outside of the graph, stopped.
        graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        output = function()
    return graph, output
