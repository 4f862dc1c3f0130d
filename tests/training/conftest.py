import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from accelerate.state import AcceleratorState

from trajplan.data.dataset import OfflineDataset
from trajplan.training.config import TrainConfig


@pytest.fixture(autouse=True)
def alike_on_all_machines(one_thread):
    """One thread, and no accelerate state of what was trained before."""
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def dataset():
    """12 noisy walks of 1 to 17 steps; every third ends in a terminal, the others by a time limit."""
    rng = np.random.default_rng(0)
    episodes = []
    for number, length in enumerate([9, 1, 17, 6, 12, 3, 10, 8, 2, 14, 7, 11]):
        actions = rng.uniform(-1, 1, (length, 2)).astype(np.float32)
        path = np.concatenate([np.zeros((1, 2)), np.cumsum(actions, 0)]) + rng.normal(0, 0.1, (length + 1, 2))
        flags = np.zeros((2, length), bool)
        flags[int(number % 3 != 0), -1] = True
        episodes.append(
            {
                "observations": np.concatenate([path, path[:, :1] ** 2], 1).astype(np.float32),
                "actions": actions,
                "rewards": actions[:, 0],
                "terminations": flags[0],
                "truncations": flags[1],
            }
        )
    return OfflineDataset.from_episodes(episodes, id="walks")


@pytest.fixture(scope="session")
def tiny():
    """Settings of a run that takes a second: `tiny(**changes)`."""

    def make(**changes):
        run = {"batch_size": 16, "updates": 12, "warmup_updates": 2, "learning_rate": 1e-2, "precision": "no"}
        run["attention"] = "causal_blocks"
        shape = {"n_layer": 2, "n_head": 2, "n_embd": 16, "bins": 8, "window": 4}
        cadence = {"held_out": 0.2, "eval_every": 5, "eval_windows": 13, "log_every": 2, "save_every": 4}
        return TrainConfig(**run | shape | cadence | changes)

    return make


class Trainer:
    """The process of trainer.py."""

    def __init__(self, folder):
        command = [sys.executable, str(Path(__file__).parent / "trainer.py")]
        self.folder = folder
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def start(self, task, *arguments, processes=1, **options):
        """Begin a task; returns the pids of its processes."""
        path = self.folder / "arguments"
        path.write_bytes(pickle.dumps((arguments, options)))
        request = {"task": task, "arguments": str(path), "processes": processes}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def wait(self):
        """The exit codes of the task's processes."""
        return json.loads(self.process.stdout.readline())

    def run(self, task, *arguments, processes=1, **options):
        """Do a task that succeeds."""
        self.start(task, *arguments, processes=processes, **options)
        assert self.wait() == [0] * processes


@pytest.fixture(scope="session")
def trainer(tmp_path_factory):
    """Trains in other processes: see `Trainer`."""
    made = Trainer(tmp_path_factory.mktemp("trainer"))
    yield made
    made.process.stdin.close()
    made.process.wait()
