"""OGBench's files: seconds to import, to open first and to open again, equality with OGBench's own loader, and steps/s.

Every file NAME.npz in a folder is imported into a temporary Minari root, with its -val file. The training transitions
are compared with those of `ogbench.make_env_and_datasets`, and for each task its rewards and masks, too; any difference
stops the benchmark. Then a policy that does nothing acts in the environment, stepped by itself and through the
rollouts of `trajplan evaluate`, in turns. Seconds are of the process's own processor time.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

os.environ.setdefault("MUJOCO_GL", "disabled")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of NAME.npz and NAME-val.npz")
    parser.add_argument("--tasks", type=int, nargs="*", default=[1, 2, 3, 4, 5], help="single tasks to compare")
    parser.add_argument("--repeats", type=int, default=5, help="of the steps")
    parser.add_argument("--output", help="write the numbers to this JSON file")
    args = parser.parse_args()
    results = {}
    for path in sorted(args.folder.glob("*.npz")):
        if not path.stem.endswith("-val"):
            results[path.stem] = measure(path, args.tasks, args.repeats)
            print(path.stem, results[path.stem], flush=True)
    if args.output:
        from record import write

        write(args.output, {"files": results})


def measure(path: Path, tasks: list[int], repeats: int) -> dict[str, Any]:
    import ogbench

    from trajplan.cli import main as trajplan
    from trajplan.data.dataset import OfflineDataset
    from trajplan.data.sources.ogbench import ogbench_id, read_ogbench

    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"MINARI_DATASETS_PATH": f"{folder}/minari", "TRAJPLAN_CACHE": f"{folder}/cache"}
        Path(folder, "minari").mkdir()
        seconds = {}
        begun = time.process_time()
        assert trajplan(["datasets", "import", str(path)]) == 0
        seconds["import"] = time.process_time() - begun
        for name in ("first_opening", "opening"):
            begun = time.process_time()
            dataset = OfflineDataset.from_minari(ogbench_id(path))
            seconds[name] = time.process_time() - begun
        mapped = isinstance(dataset.observations, np.memmap)
        theirs, _ = ogbench.make_env_and_datasets(path.stem, dataset_path=str(path), dataset_only=True)
        compare(dataset, theirs)
        for task in tasks:
            name = path.stem.replace("-v", f"-singletask-task{task}-v")
            _, theirs, _ = ogbench.make_env_and_datasets(name, dataset_path=str(path))
            arrays, info = read_ogbench(path, task=task)
            compare(OfflineDataset(id=info.id, info=info, **arrays), theirs)
        return {
            "transitions": dataset.num_transitions,
            "episodes": dataset.num_episodes,
            "held_out": list(dataset.info.held_out),
            "memory_mapped": mapped,
            "equal_to_ogbench": True,
            "tasks_equal_to_ogbench": tasks,
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
            "microseconds_a_step": steps(dataset.info, repeats),
        }


def compare(dataset: Any, theirs: dict[str, np.ndarray]) -> None:
    ours = dataset.transitions().gather(torch.arange(dataset.num_transitions))
    for name in ("observations", "actions", "next_observations"):
        np.testing.assert_array_equal(getattr(ours, name), theirs[name])
    if "masks" in theirs:
        np.testing.assert_array_equal(ours.rewards, theirs["rewards"])
        np.testing.assert_array_equal(ours.terminations, theirs["masks"] == 0)


class Still:
    """Does nothing."""

    def __init__(self, info: Any) -> None:
        self.info = info

    def reset(self, seeds: Any, rows: Any, goals: Any = None) -> None:
        pass

    def act(self, observations: np.ndarray, rewards: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return np.zeros((len(rows), self.info.action_dim), np.float32)


def steps(info: Any, repeats: int) -> dict[str, float]:
    from trajplan.evaluation.environments import environment_maker, tasks_of
    from trajplan.evaluation.rollout import evaluate

    make_env = environment_maker(info)
    alone, rolled = [], []
    for _ in range(repeats):
        env: Any = make_env()
        tasks, action = tasks_of(env), np.zeros(info.action_dim, np.float32)
        plain = env.env
        plain.reset(options={"task_id": 1})
        begun = time.process_time()
        for _ in range(1000):
            plain.step(action)
        alone.append((time.process_time() - begun) * 1e3)
        env.close()
        found = evaluate(Still(info), make_env, episodes=1, tasks=tasks)  # imports what is needed
        begun = time.process_time()
        found = evaluate(Still(info), make_env, episodes=20, num_envs=20, tasks=tasks)
        taken = sum(episode.length for episode in found.episodes)
        rolled.append((time.process_time() - begun) / taken * 1e6)
    return {"alone": round(statistics.median(alone), 1), "in_rollouts": round(statistics.median(rolled), 1)}


if __name__ == "__main__":
    main()
