"""What the trainer repeats: learning rates, a batch, an update. On a GPU batch and update are one captured graph.

An update is a few hundred small kernels, and a GPU would spend most of its time waiting for their launches.
"""

import math
from collections.abc import Callable, Sequence

import torch

from trajplan.baselines.engine.method import Learner, Metrics
from trajplan.cuda_graph import capture, warm_up
from trajplan.data.transitions import Batch

# Calls before the capture.
WARM_UP = 3


class Updates:
    """Updates of a method on fresh batches.

    Args:
        method: on `device`; its optimisers are made ready for capture there.
        draw: gives a batch on `device`, without reading a tensor's value on the host.
        count: updates of the whole run, along which the learning rates of `Learner.cosine` fall to 0.
        device: where the method is.
        generators: what batch and update draw from, besides torch's default generators.
    """

    def __init__(
        self,
        method: Learner,
        draw: Callable[[], Batch],
        count: int,
        device: torch.device,
        generators: Sequence[torch.Generator] = (),
    ) -> None:
        self.method, self.count = method, count
        self.rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in method.optimizers.items()}
        self._update: Callable[[], Metrics] = lambda: method.update(draw())
        if device.type == "cuda":
            self._make_capturable(device)
            self._update = CapturedUpdate(self._update, generators)

    def __call__(self, done: int) -> Metrics:
        """The update after the first `done` ones; its metrics are overwritten by the next."""
        for name in self.method.cosine:
            rate = self.rates[name] * 0.5 * (1 + math.cos(math.pi * done / self.count))
            for group in self.method.optimizers[name].param_groups:
                if isinstance(group["lr"], torch.Tensor):
                    group["lr"].fill_(rate)
                else:
                    group["lr"] = rate
        return self._update()

    def _make_capturable(self, device: torch.device) -> None:
        for name, optimizer in self.method.optimizers.items():
            for group in optimizer.param_groups:
                # A number would be part of the graph, and stay what it was.
                group |= {"capturable": True, "lr": torch.tensor(self.rates[name], device=device)}


class CapturedUpdate:
    """An update that is captured as a CUDA graph at its fourth call, and replayed from then on.

    Args:
        update: changes tensors in place and returns tensors, reads none on the host, and reads none but those that
            are in the same place at every call.
        generators: what it draws from, besides torch's default generators.
    """

    def __init__(self, update: Callable[[], Metrics], generators: Sequence[torch.Generator] = ()) -> None:
        self.update, self.generators, self.calls = update, generators, 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.metrics: Metrics = {}

    def __call__(self) -> Metrics:
        """One update; the metrics are overwritten by the next."""
        if self.calls < WARM_UP:
            self.calls += 1
            return warm_up(self.update)
        if self.graph is None:
            self.graph, self.metrics = capture(self.update, self.generators)
        self.graph.replay()
        return self.metrics
