"""The seeds of a method trained together: one batched computation, and a run folder for each as if it were alone.

An update is many small operations, and other seeds' are the same ones on other numbers. So the parameters of all lie
stacked along a first axis, and `torch.func.vmap` of the method's own update computes all updates at once. Adam works
entry by entry, and the gradient of a sum of losses that share no parameters is each one's own: the stacks are stepped
as the seeds would be. Every seed draws from a generator of its own what it would draw alone.
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from trajplan.baselines.dynamics.settings import ModelBasedConfig
from trajplan.baselines.engine.method import Metrics
from trajplan.baselines.engine.run_state import Evaluate, Run, restore
from trajplan.baselines.engine.settings import RunConfig
from trajplan.baselines.engine.trainer import Task, announce, begin, loop, prepare
from trajplan.baselines.engine.updates import Updates
from trajplan.data.dataset import OfflineDataset
from trajplan.data.transitions import Batch, Transitions
from trajplan.devices import choose_device
from trajplan.errors import TrajplanError
from trajplan.models.seeds import seeds_together
from trajplan.runs import state
from trajplan.runs.interrupt import Interrupt
from trajplan.runs.result import TrainResult


def why_apart(config: Any, run_config: RunConfig) -> str | None:
    """Why the seeds of a method with these settings are trained one by one, in a few words; None: they need not be."""
    if isinstance(config, ModelBasedConfig):
        return "it learns in rollouts of a dynamics model"
    if getattr(config, "dropout", 0):
        return "it has dropout"
    return "trackers follow one run a process" if run_config.trackers else None


def train_together(
    dataset: OfflineDataset,
    outputs: Mapping[int, Path],
    name: str,
    config: Any,
    run_config: RunConfig,
    *,
    evaluate: Evaluate | None = None,
    device: str | None = None,
    progress: bool = True,
) -> dict[int, TrainResult | TrajplanError]:
    """Train several seeds of a method into folders of their own, or resume them, as `trainer.train` does one.

    Args:
        dataset: what to learn from.
        outputs: each seed's folder.
        name, config: the method and its settings, for which `why_apart` is None.
        run_config: settings of every run, but for the seed.
        evaluate, device, progress: as for `trainer.train`.

    Returns:
        How each seed ended: as an error if it could not begin or its numbers are not finite.
    """
    task = prepare(dataset, name, config, run_config, choose_device(device))
    ended: dict[int, TrainResult | TrajplanError] = {}
    # Seeds that were not stopped at the same update are not in step.
    groups: dict[int, list[tuple[Run, Stream]]] = defaultdict(list)
    with Interrupt() as interrupt:
        for seed, folder in outputs.items():
            try:
                run, stream = _begun(task, folder, replace(run_config, seed=seed), evaluate)
            except TrajplanError as error:
                ended[seed] = error
                continue
            groups[run.done].append((run, stream))
        for done, group in sorted(groups.items()):
            runs, streams = zip(*group, strict=True)
            if interrupt.wanted:
                results: Sequence[TrainResult | TrajplanError] = [TrainResult(done, done < run_config.updates)] * len(
                    runs
                )
            else:
                results = _train(runs, [stream.generator for stream in streams], interrupt, progress)
            ended |= {run.config.seed: result for run, result in zip(runs, results, strict=True)}
    return {seed: ended[seed] for seed in outputs}


class Stream:
    """The random numbers of one seed: torch's default generators as they would be if it had them to itself.

    Attributes:
        generator: the one of the device.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.generator = device, torch.Generator(device)
        self._states = state.random_states(device)

    @contextmanager
    def as_default(self) -> Iterator[None]:
        """Within it torch's default generators are this seed's."""
        on_gpu = self.device.type == "cuda"
        with torch.random.fork_rng(devices=[self.device] if on_gpu else []):
            self._states["device" if on_gpu else "cpu"] = self.generator.get_state()
            state.set_random_states(self._states, self.device)
            yield
            self._states = state.random_states(self.device)
            self.generator.set_state(self._states["device" if on_gpu else "cpu"])


class StackedMethod:
    """Methods of one kind and different weights as one: a `Method` whose batches and metrics have an axis of seeds.

    From here on the methods' parameters, and the moments of their optimisers, are views of the stacks: what an update
    changes is theirs at once.

    Args:
        methods: as far as each other.
        generators: what each draws from.
    """

    def __init__(self, methods: Sequence[Any], generators: Sequence[torch.Generator]) -> None:
        self.methods, self.generators = methods, generators
        parameters, buffers = stack_module_state(list(methods))
        self._stacks = parameters | buffers
        for number, method in enumerate(methods):
            for name, tensor in [*method.named_parameters(), *method.named_buffers()]:
                tensor.data = self._stacks[name].detach()[number]
        stack_of = {tensor: self._stacks[name] for name, tensor in methods[0].named_parameters()}
        self.optimizers = {
            name: _stacked_optimizer([method.optimizers[name] for method in methods], stack_of)
            for name in methods[0].optimizers
        }
        self.cosine: tuple[str, ...] = methods[0].cosine
        one = copy.copy(methods[0])
        one.optimizers = self.optimizers
        self._update = _Update(one)

    def update(self, batch: Batch) -> Metrics:
        """One update of every seed, on a batch whose fields are (seeds, B, ...); metrics are (seeds,)."""

        def of_one(stacks: dict[str, Tensor], columns: dict[str, Tensor]) -> Metrics:
            return functional_call(self._update, {f"method.{name}": part for name, part in stacks.items()}, columns)

        with seeds_together(self.generators):
            metrics = vmap(of_one)(self._stacks, _columns(batch))
        self._share_moments()
        return metrics

    def _share_moments(self) -> None:
        """Let the methods' optimisers see the moments, which exist from the first step on."""
        for name, optimizer in self.optimizers.items():
            for number, method in enumerate(self.methods):
                own = method.optimizers[name]
                for stack, tensor in zip(_parameters(optimizer), _parameters(own), strict=True):
                    if stack in optimizer.state and tensor not in own.state:
                        moments = optimizer.state[stack].items()
                        own.state[tensor] = {key: value if key == "step" else value[number] for key, value in moments}


class _Update(nn.Module):
    """What `functional_call` calls."""

    def __init__(self, method: Any) -> None:
        super().__init__()
        self.method = method

    def forward(self, columns: dict[str, Tensor]) -> Metrics:
        return self.method.update(Batch(**columns))


def sample_together(transitions: Transitions, batch_size: int, generators: Sequence[torch.Generator]) -> Batch:
    """The batch that each generator alone would draw, gathered at once: fields are (seeds, batch_size, ...)."""
    batch = transitions.gather(torch.cat([transitions.draw(batch_size, generator) for generator in generators]))
    shape = (len(generators), batch_size)
    return Batch(**{name: column.unflatten(0, shape) for name, column in _columns(batch).items()})


def _columns(batch: Batch) -> dict[str, Tensor]:
    columns = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {name: column for name, column in columns.items() if column is not None}


def _begun(task: Task, folder: Path, run_config: RunConfig, evaluate: Evaluate | None) -> tuple[Run, Stream]:
    stream = Stream(task.device)
    with stream.as_default():
        run, step = begin(task, folder, run_config, resume=True, evaluate=evaluate)
        if step:
            restore(run, step)
    run.label, run.random = f"seed {run_config.seed}, ", stream.as_default
    return run, stream


def _train(
    runs: Sequence[Run], generators: Sequence[torch.Generator], interrupt: Interrupt, visible: bool
) -> list[TrainResult | TrajplanError]:
    config, device = runs[0].config, runs[0].device
    stacked = StackedMethod([run.method for run in runs], generators)
    draw: Callable[[], Batch] = lambda: sample_together(runs[0].transitions, config.batch_size, generators)  # noqa: E731
    updates = Updates(stacked, draw, config.updates, device, generators if device.type == "cuda" else ())
    if visible:
        announce(runs)
    return loop(runs, updates, interrupt, visible)


def _stacked_optimizer(optimizers: Sequence[torch.optim.Adam], stack_of: Mapping[Any, Tensor]) -> torch.optim.Adam:
    """Adam over stacks, with the moments that the optimisers of the seeds have."""
    groups = [group | {"params": [stack_of[one] for one in group["params"]]} for group in optimizers[0].param_groups]
    stacked = torch.optim.Adam(groups)
    for stack, *tensors in zip(_parameters(stacked), *map(_parameters, optimizers), strict=True):
        states = [optimizer.state.pop(tensor, {}) for optimizer, tensor in zip(optimizers, tensors, strict=True)]
        # Its step counts all seeds' steps, which are equally many.
        stacked.state[stack] = {
            key: value.clone() if key == "step" else torch.stack([one[key] for one in states])
            for key, value in states[0].items()
        }
        if not states[0]:
            del stacked.state[stack]
    return stacked


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
