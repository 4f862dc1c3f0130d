"""Updates a second over all seeds of a method: trained together, and one after the other, in turns in one process.

python benchmarks/seeds_together.py [--methods bc iql awac cql] [--seeds 5] [--updates 200] [--turns 5] [--device cpu]

Data of Hopper's sizes, published network sizes, the trainer's own updates. On a CPU seconds are the process's, in which
other work on the machine does not count; on a GPU they are those of the wall clock, updates captured as graphs. Beside
them is how many operations (of tensors, views left out; on a GPU each is a kernel or a few) make up one update of all
seeds.
"""

import argparse
import statistics
import time
from typing import Any

import torch
from record import write
from torch.utils._python_dispatch import TorchDispatchMode
from train_speed import synthetic

from trajplan.baselines.engine.settings import RunConfig
from trajplan.baselines.engine.together import StackedMethod, sample_together, why_apart
from trajplan.baselines.engine.updates import WARM_UP, Updates
from trajplan.baselines.registry import METHODS
from trajplan.data.info import DatasetInfo
from trajplan.data.transitions import Transitions
from trajplan.models.networks import Dimensions

# Operations that only make room, or nothing.
ALLOCATING = ("aten::empty", "aten::new_empty", "aten::detach", "aten::_unsafe_view")
# An update of this asks Q about 31 actions a state: fewer of them are measured.
HEAVY = {"cql": 8}


def seconds_of(calls: list[Updates], updates: int, device: torch.device) -> float:
    """How long so many updates of each take, one after the other, once they are warm."""
    for call in calls:
        for done in range(WARM_UP + 1 if device.type == "cuda" else 1):
            call(done)
    clock = time.process_time
    if device.type == "cuda":
        clock = time.perf_counter
        torch.cuda.synchronize()
    started = clock()
    for call in calls:
        for done in range(updates):
            call(done)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - started


def methods_of(name: str, seeds: int, info: DatasetInfo, device: torch.device) -> list[Any]:
    entry, made = METHODS[name], []
    for seed in range(seeds):
        torch.manual_seed(seed)
        made.append(entry.method_class(info)(Dimensions.of(info), entry.config_class()()).to(device))
    return made


class Operations(TorchDispatchMode):
    """Counts the operations that compute something."""

    count = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = operation.name()
        self.count += name.startswith("aten::") and not operation.is_view and not name.startswith(ALLOCATING)
        return operation(*args, **(kwargs or {}))


def operations_of(calls: list[Updates]) -> int:
    """How many make up one update of each."""
    with Operations() as counted:
        for call in calls:
            call(1)
    return counted.count


def updates_of(
    name: str, data: Any, seeds: int, updates: int, batch_size: int, device: torch.device
) -> tuple[list[Updates], list[Updates]]:
    """Updates of all seeds together, and of each alone."""
    discount = METHODS[name].config_class()().discount if METHODS[name].returns else None
    transitions: Transitions = data.transitions(device=device, discount=discount)
    generators = [torch.Generator(device).manual_seed(seed) for seed in range(seeds)]
    stacked = StackedMethod(methods_of(name, seeds, data.info, device), generators)
    together = Updates(
        stacked,
        lambda: sample_together(transitions, batch_size, generators),
        updates,
        device,
        generators if device.type == "cuda" else (),
    )
    alone = [
        Updates(method, lambda: transitions.sample(batch_size), updates, device)
        for method in methods_of(name, seeds, data.info, device)
    ]
    return [together], alone


def main() -> None:
    choices = [name for name in METHODS if why_apart(METHODS[name].config_class()(), RunConfig()) is None]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=choices, default=["bc", "iql", "awac", "cql"], metavar="METHOD")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=200, help="of each seed in a turn; of CQL an eighth")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", help="write the numbers to this JSON file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    data, device, measured = synthetic(11, 3), torch.device(args.device), {}
    for name in args.methods:
        updates = args.updates // HEAVY.get(name, 1)
        both = updates_of(name, data, args.seeds, updates, args.batch_size, device)
        turns = [
            [args.seeds * updates / seconds_of(calls, updates, device) for calls in both] for _ in range(args.turns)
        ]
        ratios = [round(together / alone, 3) for together, alone in turns]
        measured[name] = {
            "updates_per_second_together": [round(together, 1) for together, _ in turns],
            "updates_per_second_in_a_row": [round(alone, 1) for _, alone in turns],
            "ratio": statistics.median(ratios),
            "ratio_by_turn": ratios,
        }
        if device.type == "cpu":  # on a GPU a captured update is one launch
            operations = [operations_of(calls) for calls in both]
            measured[name] |= {"operations_together": operations[0], "operations_in_a_row": operations[1]}
        print(
            f"{name:6} {statistics.median(turn[0] for turn in turns):10,.1f} updates a second over {args.seeds} seeds "
            f"together, {statistics.median(turn[1] for turn in turns):10,.1f} in a row: "
            f"{statistics.median(ratios):.2f} times",
            flush=True,
        )
    if args.output:
        how = {"device": args.device, "threads": args.threads, "seeds": args.seeds, "batch_size": args.batch_size}
        clock = "process time" if device.type == "cpu" else "wall clock"
        write(args.output, how | {"clock": clock, "methods": measured})


if __name__ == "__main__":
    main()
