"""Reading Minari's HDF5 files through Minari's own storage and straight through h5py, without the episodes' infos.

Two datasets: one of the Minari root (flat observations, no infos; default hopper's medium-replay data), and a maze of
dictionary observations with the infos of Minari's own mazes, recorded here into a temporary folder. Each reader runs in
a process of its own, in turn, several times; reported are seconds, peak memory above that before the first episode,
whether the arrays are equal, and the seconds that opening the dataset for the first time takes as a whole.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

MAZE = "bench/maze-v0"
FIELDS = ("observations", "actions", "rewards", "terminations", "truncations")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="bench/hopper/medium-replay-v0", help="a Minari id")
    parser.add_argument("--maze-episodes", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", help="write the numbers to this JSON file")
    parser.add_argument("--stage", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stage:
        stage, id = args.stage
        print(json.dumps(STAGES[stage](args, id)))
        return
    results: dict[str, Any] = {"maze_episodes": args.maze_episodes, "repeats": args.repeats}
    with tempfile.TemporaryDirectory() as folder:
        for id in (args.dataset, MAZE):
            root = {} if id == args.dataset else {"MINARI_DATASETS_PATH": f"{folder}/minari"}
            if root:
                _run("collect", id, root)
            results[id] = _compare(args.repeats, id, root)
            print(id, json.dumps(results[id], indent=2), flush=True)
    if args.output:
        from record import write

        write(args.output, results)


def _compare(repeats: int, id: str, root: dict[str, str]) -> dict[str, Any]:
    runs = [{reader: _run(reader, id, root) for reader in ("minari", "h5py")} for _ in range(repeats)]
    first: dict[str, Any] = {
        reader: {
            "seconds": statistics.median(run[reader]["seconds"] for run in runs),
            "seconds_best": min(run[reader]["seconds"] for run in runs),
            "peak_megabytes": max(run[reader]["peak_megabytes"] for run in runs),
        }
        for reader in ("minari", "h5py")
    }
    assert len({run[reader]["digest"] for run in runs for reader in run}) == 1, "the readers differ"
    ratios = {key: first["minari"][key] / first["h5py"][key] for key in ("seconds", "seconds_best")}
    opened = [_run("open", id, root)["seconds"] for _ in range(repeats)]
    sizes = {key: runs[0]["minari"][key] for key in ("episodes", "transitions")}
    return {**sizes, **first, "ratio": ratios, "equal": True, "first_opening_seconds": statistics.median(opened)}


def _run(stage: str, id: str, root: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, *sys.argv, "--stage", stage, id]
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | root | {"TRAJPLAN_CACHE": cache}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def collect(args: argparse.Namespace, id: str) -> dict[str, Any]:
    import gymnasium
    import gymnasium_robotics
    import minari
    from minari.data_collector import EpisodeBuffer

    warnings.simplefilter("ignore")
    gymnasium.register_envs(gymnasium_robotics)
    Path(os.environ["MINARI_DATASETS_PATH"]).mkdir(parents=True)
    env = gymnasium.make("PointMaze_UMaze-v3")
    env.action_space.seed(0)

    def record(episode: int) -> EpisodeBuffer:
        columns: dict[str, list[Any]] = {}

        def note(**values: Any) -> None:
            for name, value in values.items():
                columns.setdefault(name, []).append(value)

        def note_state(observation: dict[str, Any], info: dict[str, Any]) -> None:
            # What Minari's own mazes (D4RL/pointmaze) keep in their infos.
            data = env.unwrapped.data
            note(
                **observation,
                success=info["success"],
                goal=env.unwrapped.goal.copy(),
                qpos=data.qpos.copy(),
                qvel=data.qvel.copy(),
            )

        note_state(*env.reset(seed=episode))
        over = False
        while not over:
            action = env.action_space.sample()
            observation, reward, terminated, truncated, info = env.step(action)
            note_state(observation, info)
            note(actions=action, rewards=reward, terminations=terminated, truncations=truncated)
            over = terminated or truncated
        arrays = {name: np.array(values) for name, values in columns.items()}
        infos = {name: arrays.pop(name) for name in ("success", "goal", "qpos", "qvel")}
        observations = {name: arrays.pop(name) for name in env.observation_space.spaces}
        return EpisodeBuffer(seed=episode, observations=observations, infos=infos, **arrays)

    buffers = map(record, range(args.maze_episodes))
    minari.create_dataset_from_buffers(
        id, buffers, observation_space=env.observation_space, action_space=env.action_space
    )
    return {}


def read(args: argparse.Namespace, id: str, own: bool) -> dict[str, Any]:
    import minari

    source = minari.load_dataset(id)
    _digest(next(_by_h5py(source) if own else _by_minari(source)))
    before = _peak_megabytes()
    start = time.perf_counter()
    transitions = sum(len(episode["rewards"]) for episode in (_by_h5py if own else _by_minari)(source))
    seconds = time.perf_counter() - start
    peak = _peak_megabytes() - before
    digest = hashlib.blake2b("".join(map(_digest, (_by_h5py if own else _by_minari)(source))).encode()).hexdigest()
    sizes = {"episodes": source.total_episodes, "transitions": transitions}
    return {**sizes, "seconds": seconds, "peak_megabytes": peak, "digest": digest}


def _by_minari(source: Any) -> Iterator[dict[str, Any]]:
    for episode in source.iterate_episodes():
        yield {name: getattr(episode, name) for name in FIELDS}


def _by_h5py(source: Any) -> Iterator[dict[str, Any]]:
    import h5py

    def values(node: Any) -> Any:
        return {key: values(node[key]) for key in node} if isinstance(node, h5py.Group) else node[()]

    with h5py.File(Path(source.storage.data_path) / "main_data.hdf5", "r") as file:
        for index in range(source.total_episodes):
            group = file[f"episode_{index}"]
            yield {name: values(group[name]) for name in FIELDS}


def _digest(values: Any) -> str:
    """A digest of nested dictionaries of arrays, with their keys, types and shapes."""
    if isinstance(values, dict):
        return "".join(key + _digest(values[key]) for key in sorted(values))
    return f"{values.dtype}{values.shape}{hashlib.blake2b(values.tobytes()).hexdigest()}"


def first_opening(args: argparse.Namespace, id: str) -> dict[str, Any]:
    from trajplan.data.dataset import OfflineDataset

    start = time.perf_counter()
    OfflineDataset.from_minari(id)
    return {"seconds": time.perf_counter() - start}


def _peak_megabytes() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


STAGES = {
    "collect": collect,
    "minari": lambda args, id: read(args, id, own=False),
    "h5py": lambda args, id: read(args, id, own=True),
    "open": first_opening,
}

if __name__ == "__main__":
    main()
