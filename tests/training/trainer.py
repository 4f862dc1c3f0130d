"""A process that has imported everything and forks others to train, so that a test pays for the imports once.

It reads a line of JSON, {"task", "arguments", "processes"}, prints the pids of the forked processes and, when these
have ended, their exit codes. `arguments` is a pickle of the task's positional and keyword arguments.
"""

import json
import os
import pickle
import signal
import socket
import sys
import traceback
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from trajplan.models.trajectory_transformer import TrajectoryTransformer, TrajectoryTransformerConfig
from trajplan.runs import state
from trajplan.training.best import Best
from trajplan.training.config import TrainConfig
from trajplan.training.loop import train
from trajplan.training.optimizer import make_optimizer
from trajplan.training.sharded import all_random_states, full_moments, full_weights, restore


def restore_sharded(folder):
    """Three updates of a sharded model, saved; a fourth; the fourth again from what was saved."""
    accelerator = Accelerator(cpu=True)
    model, optimizer = sharded()
    for seed in range(3):
        update(model, optimizer, seed)
    best = Best()
    best.measured(3, 1.0, model)
    weights, moments = full_weights(model), full_moments(model, optimizer)
    random = all_random_states(accelerator)
    if accelerator.is_main_process:
        assert weights["heads"].shape == moments["heads/exp_avg"].shape == (5, 6, 8)
        state.save_state(Path(folder), weights, moments, random, {"update": 3})
        weights = {name: value.clone() for name, value in weights.items()}
    accelerator.wait_for_everyone()
    update(model, optimizer, 3)
    assert best.weights.keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in best.weights.items())
    expected = full_weights(model)
    model, optimizer = sharded()
    restore(Path(folder) / "step-00000003", model, optimizer, accelerator)
    update(model, optimizer, 3)
    for name, value in full_weights(model).items():
        assert torch.equal(value, expected[name]), name


def sharded():
    torch.manual_seed(0)
    shape = {"observation_dim": 2, "action_dim": 1, "bins": 5, "window": 2, "n_embd": 8, "n_head": 2, "n_layer": 2}
    still = {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0}
    model = TrajectoryTransformer(TrajectoryTransformerConfig(**shape, **still))
    mesh = init_device_mesh("cpu", (2,))
    for block in model.h:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model, make_optimizer(model, TrainConfig(learning_rate=0.1), torch.device("cpu"))


def update(model, optimizer, seed):
    tokens = torch.randint(0, 5, (4, 10), generator=torch.Generator().manual_seed(seed))
    model(tokens[:, :-1], targets=tokens[:, 1:]).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def fork(request, rank, port):
    pid = os.fork()
    if pid:
        return pid
    try:
        world = request["processes"]
        if world > 1:
            places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": port}
            os.environ |= {name: str(value) for name, value in places.items()} | {"MASTER_ADDR": "127.0.0.1"}
        torch.set_num_threads(1)
        arguments, options = pickle.loads(Path(request["arguments"]).read_bytes())
        {"train": train, "restore_sharded": restore_sharded}[request["task"]](*arguments, **options)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def wait(pids):
    """Exit codes; where one process fails, the others are killed, as they would wait for it."""
    codes = {}
    while len(codes) < len(pids):
        pid, status = os.wait()
        codes[pid] = os.waitstatus_to_exitcode(status)
        for other in pids if codes[pid] else []:
            if other not in codes:
                os.kill(other, signal.SIGKILL)
    return [codes[pid] for pid in pids]


if __name__ == "__main__":
    print("ready", flush=True)
    for line in sys.stdin:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        request = json.loads(line)
        pids = [fork(request, rank, port) for rank in range(request["processes"])]
        print(json.dumps(pids), flush=True)
        print(json.dumps(wait(pids)), flush=True)
