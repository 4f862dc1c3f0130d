"""A real process, really killed."""

import os
import random
import signal
import time

import torch
from safetensors.torch import load_file

from trajplan.runs.metrics import read_metrics
from trajplan.training.loop import train


def last_update(folder):
    return max((line["update"] for line in read_metrics(folder)), default=0)


def numbers(folder):
    times = ("seconds", "tokens_per_second")
    return [{name: line[name] for name in line if name not in times} for line in read_metrics(folder)]


def test_killed_at_random_moments_and_resumed_is_bit_identical(trainer, dataset, tiny, tmp_path):
    config = tiny(updates=40, save_every=3, log_every=1, eval_every=7)
    train(dataset, tmp_path / "unbroken", config)
    moments = random.Random(0)
    for update in (0, 4, 13, 27):
        (pid,) = trainer.start("train", dataset, tmp_path / "run", config, resume=True)
        while last_update(tmp_path / "run") < update:
            time.sleep(0.002)
        time.sleep(moments.random() * 0.1)
        os.kill(pid, signal.SIGKILL)
        assert trainer.wait() == [-signal.SIGKILL]
    assert last_update(tmp_path / "run") < 40
    trainer.run("train", dataset, tmp_path / "run", config, resume=True)
    assert numbers(tmp_path / "run") == numbers(tmp_path / "unbroken")
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "unbroken"))
    assert all(torch.equal(a[name], b[name]) for name in a | b)
