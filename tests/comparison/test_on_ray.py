"""The last tests start a Ray cluster of two nodes on this machine: python -m pytest -m ray, with trajplan[ray]."""

import hashlib
import importlib
import os
import signal
import sys
import threading
import time

import pytest

from trajplan.comparison import on_ray
from trajplan.comparison.on_ray import run_on_ray
from trajplan.comparison.work import run_cell
from trajplan.data.collection.collect import collect_dataset
from trajplan.errors import ConfigError

ID = "toy/pendulum-v0"
# A module that the workers import: they keep who worked on a cell, a line each time.
WORK = """
import os, time
import ray
from trajplan.comparison.worker import run_logged

def work(cell, device):
    cell.folder.mkdir(parents=True, exist_ok=True)
    with (cell.folder / "workers").open("a") as file:
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES") or "none"
        file.write(f"{os.getpid()} {ray.get_runtime_context().get_node_id()} {gpus}\\n")
    return run_logged(cell, device)
"""


def test_without_ray_there_is_a_sentence(cell, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"^--ray needs Ray: pip install 'trajplan\[ray\]'\.$"):
        run_on_ray([cell()], None)


def test_a_node_that_does_not_share_the_output_folder_is_named(cell):
    with pytest.raises(ConfigError, match="has to be shared by all nodes, under the same path"):
        on_ray._run(run_cell, cell(), None, None)


def settings(updates):
    values = {"updates": updates, "batch_size": 8, "hidden_width": 8, "hidden_layers": 1, "eval_every": 0}
    return values | {"log_every": 100, "save_every": 100}


@pytest.fixture
def work(tmp_path, monkeypatch):
    (tmp_path / "ray_work.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("ray_work").work
    del sys.modules["ray_work"]


@pytest.fixture
def data(tmp_path, monkeypatch):
    (tmp_path / "minari").mkdir()
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("TRAJPLAN_CACHE", str(tmp_path / "cache"))
    collect_dataset("Pendulum-v1", ID, episodes=4, policy="random", max_episode_steps=20)


@pytest.fixture
def address(data, tmp_path, monkeypatch):
    """Of two nodes with a CPU each, one with what Ray takes for a GPU; they know the data and the module above."""
    paths = [str(tmp_path), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    for name, value in {"USAGE_STATS_ENABLED": "0", "worker_niceness": "0"}.items():
        monkeypatch.setenv(f"RAY_{name}", value)
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1, num_gpus=1)
    yield cluster.address
    cluster.shutdown()


def until(condition):
    end = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def workers(cell):
    path = cell.folder / "workers"
    return [tuple(line.split()) for line in path.read_text().splitlines()] if path.exists() else []


def newest(cell):
    """The updates of its newest checkpoint, 0 without one."""
    steps = (cell.model / "training_state").glob("step-*")
    return max((int(step.name.removeprefix("step-")) for step in steps), default=0)


def is_running(process):
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    return True


def in_the_meantime(function):
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def interrupt_when(condition):
    def interrupt():
        try:
            until(condition)
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    in_the_meantime(interrupt)


def weights(cell):
    return hashlib.sha256((cell.model / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.ray
def test_two_nodes_share_the_cells_and_one_whose_worker_is_killed_resumes(cell, work, address, tmp_path):
    cells = [cell("bc", seed, dataset=ID, settings=settings(2000)) for seed in range(3)]

    def kill():
        until(lambda: newest(cells[0]))
        os.kill(int(workers(cells[0])[0][0]), signal.SIGKILL)

    killer, lines = in_the_meantime(kill), []
    outcomes = run_on_ray(cells, "cpu", address=address, work=work, on_progress=lines.append)
    killer.join()
    assert [outcome.status for outcome in outcomes] == ["finished"] * 3, outcomes
    assert [len(workers(made)) for made in cells] == [2, 1, 1]
    assert len({node for made in cells for _, node, _ in workers(made)}) == 2
    told = {made.name: line for shown in lines for made, line in shown.items()}
    assert any(f"process {process}" in told["bc/1"] for process, *_ in workers(cells[1]))
    assert "Traceback" not in cells[0].log.read_text()
    # What was killed became what an unbroken one becomes.
    unbroken = cell("bc", 0, dataset=ID, settings=settings(2000), output=tmp_path / "unbroken")
    assert run_cell(unbroken, "cpu")
    assert weights(cells[0]) == weights(unbroken)


@pytest.mark.ray
def test_ctrl_c_saves_and_leaves_nothing_running_and_a_second_run_resumes(cell, work, address):
    cells = [cell("bc", seed, dataset=ID, settings=settings(1_000_000)) for seed in range(3)]
    interrupt_when(lambda: all(newest(made) for made in cells[:2]))
    outcomes = run_on_ray(cells, "cpu", address=address, work=work)
    assert [outcome.status for outcome in outcomes] == ["stopped"] * 3
    assert {outcome.cell.seed: outcome.reason for outcome in outcomes}[2] == "not begun"
    for made in cells[:2]:
        assert f"{made.name} stopped after {newest(made)} updates, saved" in made.log.read_text()
        until(lambda made=made: not is_running(workers(made)[0][0]))
    assert workers(cells[2]) == []
    before = newest(cells[0])
    interrupt_when(lambda: newest(cells[0]) > before)
    run_on_ray(cells[:1], "cpu", address=address, work=work)
    assert newest(cells[0]) > before


@pytest.mark.ray
def test_a_cell_that_fails_does_not_stop_the_others_and_what_no_node_has_is_refused(cell, work, address):
    cells = [cell("bc", 0, dataset="toy/none-v0"), cell("bc", 1, dataset=ID, settings=settings(20))]
    shares = {"cpus_per_cell": 0.5, "gpus_per_cell": 0.5}
    outcomes = {outcome.cell: outcome for outcome in run_on_ray(cells, "cpu", address=address, work=work, **shares)}
    assert [gpu for made in cells for *_, gpu in workers(made)] == ["0", "0"]
    assert [outcomes[made].status for made in cells] == ["failed", "finished"]
    assert "toy/none-v0" in outcomes[cells[0]].reason
    assert cells[0].log.read_text().splitlines()[-1] == f"trajplan: error: {outcomes[cells[0]].reason}"
    with pytest.raises(ConfigError, match="No node of the Ray cluster has 8 CPUs and 0 GPUs for a cell"):
        run_on_ray(cells, "cpu", address=address, cpus_per_cell=8)
    with pytest.raises(ConfigError, match="No node of the Ray cluster has 1 CPUs and 2 GPUs"):
        run_on_ray(cells, None, address=address, gpus_per_cell=2)


@pytest.mark.ray
@pytest.mark.parametrize("address", ["127.0.0.1:1", "auto", "nonsense", "ray://127.0.0.1:1"])
def test_an_address_that_cannot_be_reached_is_named(cell, address, monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with pytest.raises(ConfigError, match=f"^No Ray cluster can be reached at {address} "):
        run_on_ray([cell()], None, address=address)
