"""Tokens a second of the training step at the paper's settings, and the share of time that making batches takes.

python benchmarks/train_speed.py [--observation-dim 11] [--action-dim 3] [--updates 3] [--SETTING VALUE ...]
"""

import argparse
import time
from dataclasses import replace

import numpy as np
import torch
from accelerate import Accelerator
from gymnasium.spaces import Box
from record import write

from trajplan.config import add_arguments, given, to_dict
from trajplan.data.dataset import OfflineDataset
from trajplan.tokenizers.fit import fit_tokenizer
from trajplan.training.batches import TokenTable, TrainingBatches
from trajplan.training.config import TrainConfig
from trajplan.training.loop import build, gains_by_bf16, gradients, uses_gpu


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--observation-dim", type=int, default=11)
    parser.add_argument("--action-dim", type=int, default=3)
    parser.add_argument("--attention", metavar="NAME", help="attn_implementation of transformers (default: sdpa)")
    parser.add_argument("--output", help="write the numbers to this JSON file")
    add_arguments(parser, TrainConfig, "settings")
    args = parser.parse_args()
    config = replace(TrainConfig(updates=3), **given(args, TrainConfig)).resolved(
        windows=1, bf16=gains_by_bf16(), cpu=not uses_gpu()
    )
    accelerator = Accelerator(cpu=not uses_gpu(), mixed_precision=config.precision)
    dataset = synthetic(args.observation_dim, args.action_dim)
    tokenizer = fit_tokenizer(config.tokenizer, dataset.joined(), config.bins)
    table = TokenTable(dataset, tokenizer, config, accelerator.device)
    windows = dataset.windows(config.window, device=accelerator.device)
    batches = TrainingBatches(table, windows, config, accelerator.process_index, accelerator.num_processes)
    raw, model, optimizer = build(dataset, tokenizer, config, accelerator)
    if args.attention:
        raw.set_attn_implementation(args.attention)

    def update(number: int) -> None:
        gradients(model, accelerator, *batches.batch(number))
        accelerator.clip_grad_norm_(model.parameters(), config.grad_clip)
        optimizer.step()
        optimizer.zero_grad()

    def seconds(work, repeats: int) -> float:  # type: ignore[no-untyped-def]
        work(0)
        if accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        for number in range(1, repeats + 1):
            work(number)
        if accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / repeats

    whole, loading = seconds(update, config.updates or 3), seconds(batches.batch, 20)
    tokens = config.batch_size * config.window * tokenizer.num_dims
    print(f"{accelerator.num_processes} x {accelerator.device.type}, {torch.get_num_threads()} threads")
    print(f"{tokens:,} tokens an update, {whole:.3f} s an update: {tokens / whole:,.0f} tokens/s")
    print(f"making a batch: {loading * 1e3:.2f} ms, {100 * loading / whole:.2f} % of an update")
    if args.output:
        numbers = {"tokens_per_second": tokens / whole, "seconds_per_update": whole, "seconds_per_batch": loading}
        write(args.output, {"device": accelerator.device.type, "settings": to_dict(config), **numbers})


if __name__ == "__main__":
    main()
