"""Size and speed of the data layer on a synthetic dataset of hopper's shape (11 + 3 dimensions).

Writes a Minari dataset (HDF5) into a temporary folder and measures, each in a process of its own: building the cache
(seconds, peak resident memory), opening it, and random batches of 4,096 single transitions and of 4,096 windows of 10,
beside the bandwidth of a plain memory copy and of one `index_select` of as many random blocks of a window's size (the
bound for random windows), on the same threads.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

DATASET = "bench/synthetic-v0"
BATCH, LENGTH = 4096, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transitions", type=int, default=10_000_000)
    parser.add_argument("--episode-length", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", type=int, default=500)
    parser.add_argument("--folder", help="where to put the temporary files (3 GB for 10 million transitions)")
    parser.add_argument("--output", help="write the numbers to this JSON file")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stage:
        print(json.dumps(STAGES[args.stage](args)))
        return
    results: dict = {"transitions": args.transitions, "episode_length": args.episode_length, "threads": args.threads}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        environment = os.environ | {
            "MINARI_DATASETS_PATH": f"{folder}/minari",
            "TRAJPLAN_CACHE": f"{folder}/cache",
            "OMP_NUM_THREADS": str(args.threads),
        }
        for stage in STAGES:
            command = [sys.executable, *sys.argv, "--stage", stage]
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            row = json.loads(done.stdout)
            results |= row
            print(stage, " ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)
    if args.output:
        from record import write

        write(args.output, results)


def write_source(args: argparse.Namespace) -> dict[str, float]:
    import warnings

    import minari
    import numpy as np
    from gymnasium import spaces
    from minari.data_collector import EpisodeBuffer

    def episodes() -> Iterator[EpisodeBuffer]:
        rng = np.random.default_rng(0)
        for _ in range(args.transitions // args.episode_length):
            steps = args.episode_length
            flags = np.zeros((2, steps), np.bool_)
            flags[:, -1] = rng.permutation([True, False])
            yield EpisodeBuffer(
                observations=rng.standard_normal((steps + 1, 11)),
                actions=rng.uniform(-1, 1, (steps, 3)).astype(np.float32),
                rewards=rng.standard_normal(steps),
                terminations=flags[0],
                truncations=flags[1],
            )

    Path(os.environ["MINARI_DATASETS_PATH"]).mkdir()
    warnings.simplefilter("ignore")
    start = time.perf_counter()
    minari.create_dataset_from_buffers(
        DATASET,
        episodes(),
        observation_space=spaces.Box(-np.inf, np.inf, (11,), np.float64),
        action_space=spaces.Box(-1, 1, (3,), np.float32),
    )
    return {"write_minari_seconds": time.perf_counter() - start}


def build_cache(args: argparse.Namespace) -> dict[str, float]:
    bare = _bare_interpreter_megabytes()
    from trajplan.data.dataset import OfflineDataset

    start = time.perf_counter()
    dataset = OfflineDataset.from_minari(DATASET)
    seconds = time.perf_counter() - start
    assert dataset.num_transitions == args.transitions
    return {
        "build_seconds": seconds,
        "build_transitions_per_second": args.transitions / seconds,
        "build_peak_megabytes_above_interpreter": _memory("VmHWM") - bare,
    }


def open_cache(args: argparse.Namespace) -> dict[str, float]:
    from trajplan.data.dataset import OfflineDataset

    start = time.perf_counter()
    dataset = OfflineDataset.from_minari(DATASET)
    first = time.perf_counter() - start
    start = time.perf_counter()
    OfflineDataset.from_minari(DATASET)
    again = time.perf_counter() - start
    start = time.perf_counter()
    dataset.returns_to_go(0.99, -100.0)
    return {"open_seconds": first, "open_again_seconds": again, "returns_to_go_seconds": time.perf_counter() - start}


def gather(args: argparse.Namespace) -> dict[str, float]:
    import torch

    from trajplan.data.dataset import OfflineDataset

    torch.set_num_threads(args.threads)
    dataset = OfflineDataset.from_minari(DATASET)
    generator = torch.Generator().manual_seed(0)
    transitions = dataset.transitions()
    windows = dataset.windows(LENGTH)
    # Every page is read once, so that what follows measures memory and not the disk.
    for array in (dataset.observations, dataset.actions, dataset.rewards, dataset.terminations):
        array.sum()

    def window_batch() -> None:
        windows.batch(torch.randint(len(windows), (BATCH,), generator=generator))

    single = _seconds(lambda: transitions.sample(BATCH, generator), args.batches)
    window = _seconds(window_batch, args.batches)
    source = torch.rand(2**26)
    target = torch.empty_like(source)
    copy = _seconds(lambda: target.copy_(source), 20)
    numbers = LENGTH * (dataset.observation_dim + dataset.action_dim + 1)
    window_bytes = 4 * BATCH * numbers
    blocks = torch.rand(args.transitions // LENGTH, numbers)

    def block_batch() -> None:
        blocks.index_select(0, torch.randint(len(blocks), (BATCH,), generator=generator))

    block = _seconds(block_batch, args.batches)
    # The best batch as well as the median one: other work on the machine only ever adds time.
    return {
        "transitions_per_second": BATCH / single[0],
        "transitions_per_second_best": BATCH / single[1],
        "windows_per_second": BATCH / window[0],
        "windows_per_second_best": BATCH / window[1],
        "window_gigabytes_per_second": window_bytes / window[0] / 1e9,
        "window_gigabytes_per_second_best": window_bytes / window[1] / 1e9,
        "random_blocks_gigabytes_per_second": window_bytes / block[0] / 1e9,
        "random_blocks_gigabytes_per_second_best": window_bytes / block[1] / 1e9,
        "memory_copy_gigabytes_per_second": 4 * source.numel() / copy[0] / 1e9,
        "memory_copy_gigabytes_per_second_best": 4 * source.numel() / copy[1] / 1e9,
        "load_average": os.getloadavg()[0],
    }


def _seconds(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median and best time of `repeats` calls, after five to warm up."""
    seconds = []
    for _ in range(repeats + 5):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[5:]), min(seconds[5:])


def _memory(name: str) -> float:
    """A figure of this process in megabytes, mapped pages included."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


def _bare_interpreter_megabytes() -> float:
    code = "print(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1])"
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout) / 1024


STAGES = {"write": write_source, "build": build_cache, "open": open_cache, "gather": gather}

if __name__ == "__main__":
    main()
