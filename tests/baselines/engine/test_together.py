"""Seeds trained together: each is what it would be alone."""

import dataclasses
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from trajplan.baselines.engine import together, updates
from trajplan.baselines.engine.settings import RunConfig
from trajplan.baselines.engine.together import StackedMethod, sample_together, train_together, why_apart
from trajplan.baselines.engine.trainer import train, transitions_for
from trajplan.baselines.engine.updates import Updates
from trajplan.baselines.registry import METHODS
from trajplan.data.transitions import Batch
from trajplan.errors import TrajplanError
from trajplan.models.networks import Dimensions
from trajplan.runs import state
from trajplan.runs.metrics import read_metrics
from trajplan.runs.tensors import read_tensors

CASES = [
    (name, kind)
    for name, entry in METHODS.items()
    for kind in ("continuous", "discrete")
    if getattr(entry, kind) and why_apart(entry.config_class()(), RunConfig()) is None
]
SETTINGS = {
    "cql-target-gap": ("cql", {"target_gap": 1.0, "target_actions": 3, "min_penalty": 0.0, "entropy_in_target": True}),
    "awac-squashed": ("awac", {"policy": "squashed"}),
    "iql-deterministic": ("iql", {"policy": "deterministic"}),
}


def noisy(policy):
    """An evaluation that draws random numbers, as a user's might."""
    torch.rand(3)
    policy.reset([0], [0], np.ones((1, 3)))
    return {"return": float(policy.act(np.ones((1, 3), np.float32), np.zeros(1), np.zeros(1)).sum())}


def folders(path, seeds=3):
    return {seed: path / str(seed) for seed in range(seeds)}


def doubled(batch):
    columns = dataclasses.asdict(batch)
    return Batch(**{n: c.double() if c is not None and c.is_floating_point() else c for n, c in columns.items()})


def trained(dataset, name, config, count, *, stacked):
    """Weights of three seeds after `count` updates in float64, batches and noise from each one's own generator."""
    transitions = transitions_for(name, config, dataset, None, torch.device("cpu"))
    methods, states = [], []
    for seed in range(3):
        torch.manual_seed(seed)
        methods.append(METHODS[name].method_class(dataset.info)(Dimensions.of(dataset.info), config).double())
        states.append(torch.get_rng_state())
    cpu = torch.device("cpu")
    if stacked:
        generators = [torch.Generator() for _ in methods]
        for generator, random in zip(generators, states, strict=True):
            generator.set_state(random)
        draw = lambda: doubled(sample_together(transitions, 8, generators))  # noqa: E731
        run = Updates(StackedMethod(methods, generators), draw, count, cpu)
        metrics = [run(done) for done in range(count)][-1]
        return methods, [{key: value[seed].item() for key, value in metrics.items()} for seed in range(3)]
    last = []
    for method, random in zip(methods, states, strict=True):
        torch.set_rng_state(random)
        run = Updates(method, lambda: doubled(transitions.sample(8)), count, cpu)
        last.append({key: value.item() for key, value in [run(done) for done in range(count)][-1].items()})
    return methods, last


@pytest.mark.parametrize(
    ("name", "kind", "settings"), [(*case, {}) for case in CASES] + [(n, "continuous", s) for n, s in SETTINGS.values()]
)
def test_in_float64_weights_moments_and_metrics_are_those_of_each_seed_alone(
    name, kind, settings, walks, choices, small
):
    dataset = walks if kind == "continuous" else choices
    config = small(name, **settings)
    one, numbers = trained(dataset, name, config, 20, stacked=True)
    other, others = trained(dataset, name, config, 20, stacked=False)
    for together_, alone, values, expected in zip(one, other, numbers, others, strict=True):
        torch.testing.assert_close(together_.state_dict(), alone.state_dict(), atol=1e-10, rtol=1e-10)
        moments, others_ = state.moments_of(together_.optimizers), state.moments_of(alone.optimizers)
        torch.testing.assert_close(moments, others_, atol=1e-10, rtol=1e-10)
        assert values == pytest.approx(expected, abs=1e-10, rel=1e-10)


def numbers(folder):
    """The lines of metrics.jsonl without times."""
    return [
        {k: v for k, v in line.items() if k not in ("seconds", "updates_per_second")} for line in read_metrics(folder)
    ]


def assert_alike(one, other):
    """Equal to float32's rounding; random states exactly."""
    assert {path.name for path in one.iterdir()} == {path.name for path in other.iterdir()}
    for line, expected in zip(numbers(one), numbers(other), strict=True):
        assert line == pytest.approx(expected, rel=1e-3, abs=1e-4)
    steps = [state.newest_state(folder / state.STATES) for folder in (one, other)]
    for name in ("model.safetensors", "optimizer.safetensors"):
        torch.testing.assert_close(*(read_tensors(step / name) for step in steps), atol=1e-4, rtol=1e-3)
    random, expected = (read_tensors(step / "random.safetensors") for step in steps)
    assert random.keys() == expected.keys()
    assert all(torch.equal(random[key], expected[key]) for key in random)
    for name in ("config.json", "training.json", "dataset.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def alone(dataset, folder, seed, name, config, settings, **keywords):
    run = dataclasses.replace(settings, seed=seed)
    return train(dataset, folder, name, config, run, device="cpu", progress=False, **keywords)


@pytest.mark.parametrize("name", ["iql", "cql"])
def test_every_seed_has_the_folder_of_a_run_of_its_own(name, walks, small, quick, tmp_path):
    config, settings = small(name), quick()
    results = train_together(
        walks, folders(tmp_path / "together"), name, config, settings, evaluate=noisy, device="cpu", progress=False
    )
    for seed, folder in folders(tmp_path / "together").items():
        expected = alone(walks, tmp_path / "alone" / str(seed), seed, name, config, settings, evaluate=noisy)
        assert (results[seed].updates, results[seed].interrupted) == (expected.updates, False)
        assert_alike(folder, tmp_path / "alone" / str(seed))


def test_stopped_by_ctrl_c_they_resume_exactly_together_or_alone(walks, small, quick, tmp_path):
    config, settings = small("awac"), quick(save_every=100)
    how = {"device": "cpu", "progress": False}

    def interrupt(policy):
        signal.raise_signal(signal.SIGINT)
        return noisy(policy)

    train_together(walks, folders(tmp_path / "whole"), "awac", config, settings, evaluate=noisy, **how)
    broken = folders(tmp_path / "broken")
    stopped = train_together(walks, broken, "awac", config, settings, evaluate=interrupt, **how)
    assert all(result.interrupted for result in stopped.values())
    assert {result.updates for result in stopped.values()} == {6}
    # One goes on alone, the others together; then all of them once more, at an end that they reached apart.
    alone(walks, broken[1], 1, "awac", config, settings, evaluate=noisy, resume=True)
    assert train_together(walks, broken, "awac", config, settings, evaluate=noisy, **how)[0].updates == 12
    for seed, folder in folders(tmp_path / "whole").items():
        assert_alike(broken[seed], folder)
    for seed in (0, 2):
        one, other = (read_tensors(runs[seed] / "model.safetensors") for runs in (broken, folders(tmp_path / "whole")))
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_resumed_from_different_updates_they_are_trained_one_group_after_the_other(walks, small, quick, tmp_path):
    config, short = small("iql"), quick(eval_every=0, save_every=4)
    runs, how = folders(tmp_path / "runs"), {"device": "cpu", "progress": False}
    calls = []

    def crash(policy):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return {}

    evaluated = dataclasses.replace(short, eval_every=5)
    with pytest.raises(KeyboardInterrupt):
        alone(walks, runs[1], 1, "iql", config, evaluated, evaluate=crash)
    results = train_together(walks, runs, "iql", config, evaluated, evaluate=lambda policy: {}, **how)
    assert [result.updates for result in results.values()] == [12, 12, 12]
    for seed, folder in runs.items():
        alone(walks, tmp_path / "alone" / str(seed), seed, "iql", config, evaluated, evaluate=lambda policy: {})
        assert_alike(folder, tmp_path / "alone" / str(seed))


def test_a_seed_that_diverges_is_named_and_the_others_go_on(walks, small, quick, tmp_path, monkeypatch):
    config, settings = small("iql"), quick(eval_every=0)
    begun = together._begun

    def spoilt(task, folder, run_config, evaluate):
        run, stream = begun(task, folder, run_config, evaluate)
        if run_config.seed == 1:
            run.method.value.network[0].weight.data.fill_(1e30)
        return run, stream

    monkeypatch.setattr(together, "_begun", spoilt)
    runs = folders(tmp_path / "runs")
    results = train_together(walks, runs, "iql", config, settings, device="cpu", progress=False)
    assert isinstance(results[1], TrajplanError)
    assert "nothing was saved" in str(results[1])
    assert "at update 2" in str(results[1])
    assert not (runs[1] / "model.safetensors").exists()
    for seed in (0, 2):
        assert results[seed].updates == 12
        alone(walks, tmp_path / "alone" / str(seed), seed, "iql", config, settings)
        assert_alike(runs[seed], tmp_path / "alone" / str(seed))


def test_a_seed_whose_folder_cannot_be_resumed_does_not_stop_the_others(walks, small, quick, tmp_path):
    runs, settings = folders(tmp_path), quick(eval_every=0)
    alone(walks, runs[1], 1, "bc", small("bc"), quick(eval_every=0, updates=3))
    results = train_together(walks, runs, "bc", small("bc"), settings, device="cpu", progress=False)
    assert "cannot be resumed with other settings" in str(results[1])
    assert [results[seed].updates for seed in (0, 2)] == [12, 12]


def test_what_cannot_be_trained_together_says_why(small, quick):
    assert why_apart(small("iql"), quick()) is None
    assert why_apart(small("iql", dropout=0.1), quick()) == "it has dropout"
    assert why_apart(small("mopo"), quick()) == "it learns in rollouts of a dynamics model"
    assert why_apart(small("bc"), quick(trackers="tensorboard")) == "trackers follow one run a process"


def test_captured_together_every_seeds_generator_belongs_to_the_graph(monkeypatch, walks, small):
    """With graphs that are replayed by calling the update again, on the CPU."""
    registered = []

    def capture(function, generators):
        registered.extend(generators)
        metrics = {}
        return SimpleNamespace(replay=lambda: metrics.update(function())), metrics

    monkeypatch.setattr(updates, "warm_up", lambda function: function())
    monkeypatch.setattr(updates, "capture", capture)
    monkeypatch.setattr(Updates, "_make_capturable", lambda self, device: None)
    config = small("cql")
    methods, runs = [], []
    for _ in range(2):
        torch.manual_seed(0)
        pair = [METHODS["cql"].method_class(walks.info)(Dimensions.of(walks.info), config) for _ in range(2)]
        generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
        draw = lambda generators=generators: sample_together(walks.transitions(), 8, generators)  # noqa: E731
        methods.append(pair)
        runs.append((StackedMethod(pair, generators), draw, generators))
    eager = Updates(*runs[0][:2], 6, torch.device("cpu"))
    # A device that only says it is a GPU.
    captured = Updates(*runs[1][:2], 6, SimpleNamespace(type="cuda"), runs[1][2])
    for done in range(6):
        expected, found = eager(done), captured(done)
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert registered == runs[1][2]
    for one, other in zip(*methods, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["bc", "iql", "awac", "cql"])
def test_on_a_gpu_every_seed_is_what_it_is_alone(name, walks, small, quick, tmp_path):
    config, settings = small(name), quick(updates=20, eval_every=0)
    train_together(walks, folders(tmp_path / "together"), name, config, settings, device="cuda", progress=False)
    for seed, folder in folders(tmp_path / "together").items():
        run = dataclasses.replace(settings, seed=seed)
        train(walks, tmp_path / "alone" / str(seed), name, config, run, device="cuda", progress=False)
        one, other = (read_tensors(each / "model.safetensors") for each in (folder, tmp_path / "alone" / str(seed)))
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
