import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch

from trajplan.baselines.engine import updates
from trajplan.baselines.engine.trainer import train
from trajplan.baselines.engine.updates import WARM_UP, CapturedUpdate, Updates
from trajplan.baselines.registry import METHODS
from trajplan.models.networks import Dimensions
from trajplan.runs.metrics import read_metrics
from trajplan.runs.tensors import read_tensors


def test_the_learning_rates_fall_along_half_a_cosine_and_only_theirs(walks, small):
    method = METHODS["iql"].method_class(walks.info)(Dimensions.of(walks.info), small("iql", actor_learning_rate=0.02))
    transitions = walks.transitions()
    run = Updates(method, lambda: transitions.sample(8), 4, torch.device("cpu"))
    rates = []
    for done in range(4):
        run(done)
        rates.append([method.optimizers[name].param_groups[0]["lr"] for name in ("actor", "critic", "value")])
    assert [row[0] for row in rates] == pytest.approx(
        [0.02, 0.01 + 0.01 * math.sqrt(0.5), 0.01, 0.01 - 0.01 * math.sqrt(0.5)]
    )
    assert all(row[1:] == [3e-4, 3e-4] for row in rates)


def test_every_call_is_one_update_and_only_one_is_captured(monkeypatch):
    """With graphs that are replayed by calling the update again, on the CPU."""
    captures = []

    def capture(function, generators):
        captures.append(count["updates"])
        metrics = {"n": torch.zeros(())}
        return SimpleNamespace(replay=lambda: metrics["n"].copy_(function()["n"])), metrics

    count = {"updates": 0}

    def update():
        count["updates"] += 1
        return {"n": torch.tensor(float(count["updates"]))}

    monkeypatch.setattr(updates, "warm_up", lambda function: function())
    monkeypatch.setattr(updates, "capture", capture)
    captured = CapturedUpdate(update)
    assert [captured()["n"].item() for _ in range(7)] == [1, 2, 3, 4, 5, 6, 7]
    assert captures == [WARM_UP]


GPU_CASES = [
    (name, kind) for name, entry in METHODS.items() for kind in ("continuous", "discrete") if getattr(entry, kind)
]


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "kind"), GPU_CASES)
def test_on_a_gpu_captured_updates_equal_eager_ones(name, kind, walks, choices, small, quick, tmp_path, monkeypatch):
    dataset = walks if kind == "continuous" else choices
    settings = quick(updates=20, log_every=1, eval_every=0)
    for folder in ("captured", "eager"):
        if folder == "eager":
            monkeypatch.setattr(CapturedUpdate, "__call__", lambda self: self.update())
        train(dataset, tmp_path / folder, name, small(name), settings, device="cuda", progress=False)
    one, other = (read_tensors(tmp_path / folder / "model.safetensors") for folder in ("captured", "eager"))
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
    lines, others = (read_metrics(tmp_path / folder) for folder in ("captured", "eager"))
    for name in lines[0].keys() - {"seconds", "updates_per_second"}:
        assert [line[name] for line in lines] == pytest.approx([line[name] for line in others], rel=1e-2, abs=1e-3)


@pytest.mark.gpu
def test_on_a_gpu_a_resumed_run_continues_where_it_stood(walks, small, quick, tmp_path):
    settings = quick(updates=20, save_every=10, eval_every=10)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    calls = []

    def crash(policy):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return {}

    train(walks, whole, "iql", small("iql"), settings, device="cuda", progress=False, evaluate=lambda policy: {})
    with pytest.raises(KeyboardInterrupt):
        train(walks, broken, "iql", small("iql"), settings, device="cuda", progress=False, evaluate=crash)
    train(
        walks,
        broken,
        "iql",
        small("iql"),
        dataclasses.replace(settings, save_every=5),
        device="cuda",
        progress=False,
        evaluate=crash,
        resume=True,
    )
    one, other = (read_tensors(folder / "model.safetensors") for folder in (whole, broken))
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
