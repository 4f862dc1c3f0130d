"""Tokens a second of the training step at the paper's settings, and the share of time that making batches takes.

python benchmarks/train_speed.py [--observation-dim 11] [--action-dim 3] [--updates 3] [--SETTING VALUE ...]

With `--turns 5 --batch-size 32` the ways of computing on a CPU are compared instead, update by update in turns, with
dropout and without: the best update of each in the processor's time of this process, as other work may share the cores.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from gymnasium.spaces import Box
from record import write
from torch import nn

from trajplan.config import add_arguments, given, to_dict
from trajplan.data.dataset import OfflineDataset
from trajplan.models.dropout import Dropout
from trajplan.tokenizers.fit import fit_tokenizer
from trajplan.training.batches import TokenTable, TrainingBatches
from trajplan.training.config import TrainConfig
from trajplan.training.loop import build, gains_by_bf16, gradients, uses_gpu

# What was the default on every CPU, the two changes to it, and both.
BEFORE = "float32, sdpa"
WAYS = {
    BEFORE: {"precision": "no", "attention": "sdpa"},
    "bfloat16, sdpa": {"precision": "bf16", "attention": "sdpa"},
    "float32, causal_blocks": {"precision": "no", "attention": "causal_blocks"},
    "bfloat16, causal_blocks": {"precision": "bf16", "attention": "causal_blocks"},
}
DROPOUT = ("embd_pdrop", "attn_pdrop", "resid_pdrop")
UNITS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16")


def synthetic(observation_dim: int, action_dim: int, episodes: int = 200, length: int = 500) -> OfflineDataset:
    rng = np.random.default_rng(0)
    end = np.arange(length) == length - 1
    made = (
        {
            "observations": rng.normal(size=(length + 1, observation_dim)).astype(np.float32),
            "actions": rng.uniform(-1, 1, (length, action_dim)).astype(np.float32),
            "rewards": rng.normal(size=length).astype(np.float32),
            "terminations": end,
            "truncations": np.zeros(length, bool),
        }
        for _ in range(episodes)
    )
    return OfflineDataset.from_episodes(made, id="synthetic", action_space=Box(-1, 1, (action_dim,)))


@dataclass
class Step:
    """One model and its updates."""

    config: TrainConfig
    accelerator: Accelerator
    batches: TrainingBatches
    update: Callable[[int], None]
    tokens: int


def make_step(dataset: OfflineDataset, config: TrainConfig, torchs_dropout: bool = False) -> Step:
    # In one process accelerate has one precision, until it forgets.
    AcceleratorState._reset_state(reset_partial_state=True)
    config = config.resolved(windows=1, bf16=gains_by_bf16(), cpu=not uses_gpu())
    accelerator = Accelerator(cpu=not uses_gpu(), mixed_precision=config.precision)
    tokenizer = fit_tokenizer(config.tokenizer, dataset.joined(), config.bins)
    table = TokenTable(dataset, tokenizer, config, accelerator.device)
    windows = dataset.windows(config.window, device=accelerator.device)
    batches = TrainingBatches(table, windows, config, accelerator.process_index, accelerator.num_processes)
    raw, model, optimizer = build(dataset, tokenizer, config, accelerator)
    for module in raw.modules() if torchs_dropout else ():
        if isinstance(module, Dropout):
            module.__class__ = nn.Dropout

    def update(number: int) -> None:
        gradients(model, accelerator, *batches.batch(number))
        accelerator.clip_grad_norm_(model.parameters(), config.grad_clip)
        optimizer.step()
        optimizer.zero_grad()

    return Step(config, accelerator, batches, update, config.batch_size * config.window * tokenizer.num_dims)


def measure(step: Step) -> dict[str, Any]:
    def seconds(work: Callable[[int], object], repeats: int) -> float:
        work(0)
        if step.accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        for number in range(1, repeats + 1):
            work(number)
        if step.accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / repeats

    whole, loading = seconds(step.update, step.config.updates or 3), seconds(step.batches.batch, 20)
    print(f"{step.accelerator.num_processes} x {step.accelerator.device.type}, {torch.get_num_threads()} threads")
    print(f"{step.tokens:,} tokens an update, {whole:.3f} s an update: {step.tokens / whole:,.0f} tokens/s")
    print(f"making a batch: {loading * 1e3:.2f} ms, {100 * loading / whole:.2f} % of an update")
    return {"tokens_per_second": step.tokens / whole, "seconds_per_update": whole, "seconds_per_batch": loading}


def compare(dataset: OfflineDataset, config: TrainConfig, turns: int) -> dict[str, Any]:
    torch.set_num_threads(1)  # several threads that wait for each other would count as time at work
    without = replace(config, **dict.fromkeys(DROPOUT, 0.0))
    steps = {
        (name, way): make_step(dataset, replace(settings, **changes), torchs_dropout=way == BEFORE)
        for name, settings in (("dropout", config), ("no dropout", without))
        for way, changes in WAYS.items()
    }
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in steps}
    for turn in range(turns + 1):
        for key, step in steps.items():
            start = time.process_time()
            step.update(turn)
            # The first is warm-up.
            seconds[key] += [time.process_time() - start] if turn else []
    numbers: dict[str, Any] = {"units": units(), "threads": 1, "turns": turns}
    for name in ("dropout", "no dropout"):
        speeds = {way: round(steps[name, way].tokens / min(seconds[name, way])) for way in WAYS}
        first, *_, last = speeds.values()
        numbers[name] = {"tokens_per_second": speeds, "ratio": round(last / first, 2)}
        for way, speed in speeds.items():
            print(f"{name:10} {way:24} {speed:7,} tokens/s, {speed / first:.2f} times")
    return numbers


def units() -> list[str]:
    """The processor's vector and matrix units, as Linux names them."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return [name for name in UNITS if name in flags]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--observation-dim", type=int, default=11)
    parser.add_argument("--action-dim", type=int, default=3)
    parser.add_argument("--turns", type=int, help="compare the ways of computing on a CPU in so many turns")
    parser.add_argument("--output", help="write the numbers to this JSON file")
    add_arguments(parser, TrainConfig, "settings")
    args = parser.parse_args()
    config = replace(TrainConfig(updates=3), **given(args, TrainConfig))
    dataset = synthetic(args.observation_dim, args.action_dim)
    if args.turns:
        device, numbers = "cpu", compare(dataset, config, args.turns)
    else:
        step = make_step(dataset, config)
        config, device, numbers = step.config, step.accelerator.device.type, measure(step)
    if args.output:
        write(args.output, {"device": device, "settings": to_dict(config), **numbers})


if __name__ == "__main__":
    main()
