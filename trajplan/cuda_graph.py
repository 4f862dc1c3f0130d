"""CUDA graphs: work of many small kernels is bound by their launches, which a replay saves."""

from collections.abc import Callable
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


def capture(function: Callable[[], Output]) -> tuple[torch.cuda.CUDAGraph, Output]:
    """A graph of the function, which is recorded but not run, and its output, which every replay overwrites."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = function()
    return graph, output
