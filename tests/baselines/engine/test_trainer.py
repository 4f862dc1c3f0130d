import dataclasses
import json
import os
import re
import shutil
import signal
import time

import numpy as np
import pytest
import torch
from gymnasium import spaces
from safetensors.torch import load_file, save_file

from trajplan.baselines.engine import checkpoint, trainer
from trajplan.baselines.engine.checkpoint import load_baseline
from trajplan.baselines.engine.scaling import fit_scaling, reward_transform, scaled_dataset, training_episodes
from trajplan.baselines.engine.settings import RunConfig
from trajplan.baselines.engine.trainer import train
from trajplan.baselines.registry import METHODS
from trajplan.data.dataset import OfflineDataset
from trajplan.errors import CheckpointError, ConfigError, TrajplanError
from trajplan.models.scaling import Scaling
from trajplan.runs import state
from trajplan.runs.metrics import read_metrics

TIMES = ("seconds", "updates_per_second")


def run(dataset, folder, name, config, settings, **keywords):
    return train(dataset, folder, name, config, settings, device="cpu", progress=False, **keywords)


def numbers(folder):
    return [{key: value for key, value in line.items() if key not in TIMES} for line in read_metrics(folder)]


def assert_same_run(one, other):
    assert numbers(one) == numbers(other)
    a, b = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert all(torch.equal(a[name], b[name]) for name in a | b)


def noisy(policy):
    """An evaluation that draws random numbers, as a user's might."""
    torch.rand(3)
    policy.reset([0], [0], np.ones((1, 3)))
    return {"return": float(policy.act(np.ones((1, 3), np.float32), np.zeros(1), np.zeros(1)).sum())}


class Stopped(Exception):
    pass


@pytest.mark.parametrize("name", METHODS)
def test_a_run_stopped_anywhere_and_resumed_is_bit_identical(name, walks, small, quick, tmp_path):
    config, settings = small(name), quick()
    run(walks, tmp_path / "whole", name, config, settings, evaluate=noisy)
    calls = []

    def crash(policy):
        calls.append(1)
        if len(calls) == 2:
            raise Stopped
        return noisy(policy)

    with pytest.raises(Stopped):
        run(walks, tmp_path / "broken", name, config, settings, evaluate=crash)
    # Crashed at update 10, after the checkpoint of update 8.
    result = run(walks, tmp_path / "broken", name, config, settings, evaluate=noisy, resume=True)
    assert (result.updates, result.interrupted) == (12, False)
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


@pytest.mark.parametrize("name", ["iql", "cql"])
def test_a_run_in_bf16_resumes_exactly_and_keeps_its_precision(name, walks, small, quick, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "cpu_gains_by_bf16", lambda: True)
    config = small(name, hidden_layers=3)
    run(walks, tmp_path / "precise", name, config, quick())
    run(walks, tmp_path / "whole", name, config, quick(precision="auto"))
    assert json.loads((tmp_path / "whole/training.json").read_text())["precision"] == "bf16"
    last, precise = (numbers(tmp_path / folder)[-1] for folder in ("whole", "precise"))
    assert last != precise
    assert last == pytest.approx(precise, rel=0.1, abs=0.05)
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed/training_state/step-00000012")
    monkeypatch.setattr(trainer, "cpu_gains_by_bf16", lambda: False)
    run(walks, tmp_path / "resumed", name, config, quick(precision="auto"), resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "resumed")


def test_ctrl_c_saves_and_the_run_continues_exactly(walks, small, quick, tmp_path):
    config, settings = small("iql", dropout=0.5), quick(save_every=100)
    run(walks, tmp_path / "whole", "iql", config, settings, evaluate=noisy)

    def interrupt(policy):
        signal.raise_signal(signal.SIGINT)
        return noisy(policy)

    result = run(walks, tmp_path / "broken", "iql", config, settings, evaluate=interrupt)
    assert (result.updates, result.interrupted) == (6, True)
    run(
        walks,
        tmp_path / "broken",
        "iql",
        config,
        dataclasses.replace(settings, save_every=3),
        evaluate=noisy,
        resume=True,
    )
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


def test_a_killed_process_continues_exactly(walks, small, quick, tmp_path):
    config, settings = small("awac"), quick(updates=60, save_every=3, log_every=1)
    run(walks, tmp_path / "whole", "awac", config, settings)
    for update in (0, 10, 30):
        pid = os.fork()
        if pid == 0:
            try:
                run(walks, tmp_path / "broken", "awac", config, settings, resume=True)
            finally:
                os._exit(1)
        while len(read_metrics(tmp_path / "broken") if (tmp_path / "broken").exists() else []) < update:
            time.sleep(0.002)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    run(walks, tmp_path / "broken", "awac", config, settings, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


def test_metrics_come_at_their_times(walks, small, quick, tmp_path):
    result = run(walks, tmp_path / "run", "iql", small("iql"), quick(), evaluate=noisy)
    lines = read_metrics(tmp_path / "run")
    assert [line["update"] for line in lines] == [2, 4, 5, 6, 8, 10, 12]
    assert [line["update"] for line in lines if "evaluation/return" in line] == [5, 10, 12]
    assert lines[-1] == result.metrics
    assert lines[-1]["updates_per_second"] > 0
    assert len(list((tmp_path / "run/training_state").glob("step-*"))) == 2


def test_an_evaluation_is_told_with_speed_and_time_left(walks, small, quick, tmp_path, capsys):
    train(walks, tmp_path / "run", "iql", small("iql"), quick(), evaluate=noisy, device="cpu")
    assert re.search(r"update 5: return -?[\d.]+; [\d,]+ updates/s, 00:\d\d left", capsys.readouterr().err)


def test_tensorboard_gets_the_metrics_of_a_run_and_of_its_continuation(walks, small, quick, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def interrupt(policy):
        signal.raise_signal(signal.SIGINT)
        return noisy(policy)

    settings = quick(trackers="tensorboard")
    run(walks, tmp_path, "iql", small("iql"), settings, evaluate=interrupt)
    run(walks, tmp_path, "iql", small("iql"), settings, evaluate=noisy, resume=True)
    events = EventAccumulator(str(tmp_path / "trackers/trajplan"))
    events.Reload()
    for name in ("critic/loss", "evaluation/return"):
        lines = [(line["update"], pytest.approx(line[name])) for line in read_metrics(tmp_path) if name in line]
        assert [(event.step, event.value) for event in events.Scalars(name)] == lines


def test_a_tracker_that_is_not_installed_is_named(walks, small, quick, tmp_path, monkeypatch):
    monkeypatch.setattr("trajplan.runs.trackers.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install wandb"):
        run(walks, tmp_path / "run", "bc", small("bc"), quick(trackers="wandb"))
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="trackers is nosuch; it must be among tensorboard"):
        quick(trackers="nosuch")


def test_the_recorded_time_holds_every_evaluation(walks, small, quick, tmp_path):
    def slow(policy):
        time.sleep(0.2)
        return noisy(policy)

    result = run(walks, tmp_path, "bc", small("bc"), quick(), evaluate=slow)
    assert result.metrics["seconds"] >= 3 * 0.2
    assert read_metrics(tmp_path)[-1]["seconds"] >= 3 * 0.2
    about = max((tmp_path / "training_state").glob("step-*")) / "state.json"
    assert json.loads(about.read_text())["seconds"] >= 3 * 0.2


def test_the_picture_of_values_has_every_evaluation(walks, small, quick, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "trajplan.baselines.engine.value_picture.save_value_picture",
        lambda lines, path: drawn.append([line["update"] for line in lines if "evaluation/return" in line]),
    )
    run(walks, tmp_path, "iql", small("iql"), quick(), evaluate=noisy)
    assert drawn == [[5], [5, 10], [5, 10, 12]]


def test_the_folder_says_what_was_done(walks, small, quick, tmp_path):
    run(walks, tmp_path, "bc", small("bc"), quick(reward_transform="minus-one"))
    config, dataset = (json.loads((tmp_path / name).read_text()) for name in ("config.json", "dataset.json"))
    assert (config["model_type"], config["method"]) == ("trajplan-baseline", "bc")
    assert (config["observation_dim"], config["action_dim"], config["num_actions"]) == (3, 2, None)
    assert config["settings"]["hidden_width"] == 8
    assert dataset["reward_transform"] == {"name": "minus-one", "scale": 1.0, "shift": -1.0}
    assert dataset["mean_return"] == pytest.approx(walks.returns.mean())
    assert json.loads((tmp_path / "training.json").read_text())["updates"] == 12
    statistics = load_file(tmp_path / "model.safetensors")
    np.testing.assert_allclose(statistics["observation_mean"], walks.statistics().mean)
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o666 & ~umask


def test_what_a_method_sees(walks):
    scaling = fit_scaling(walks, True)
    seen = scaled_dataset(walks, scaling, 2.0, -1.0)
    np.testing.assert_allclose(seen.observations.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(seen.observations.std(0), 1, atol=1e-3)
    np.testing.assert_allclose(seen.actions, walks.actions * [2 / 3, 0.5] + [1 / 3, -1], atol=1e-6)
    np.testing.assert_allclose(seen.rewards, 2 * walks.rewards - 1, rtol=1e-5, atol=1e-6)
    back = scaling.environment_actions(torch.from_numpy(seen.actions))
    np.testing.assert_allclose(back, walks.actions, atol=1e-6)
    outside = scaling.actions(torch.tensor([[-9.0, 9.0]]))
    assert outside.tolist() == [[-1, 1]]
    still = fit_scaling(walks, False)
    assert torch.equal(still.observations(torch.ones(2, 3)), torch.ones(2, 3))


def test_the_dataset_is_left_as_it_is(walks, small, quick, tmp_path):
    before = [np.array(array) for array in (walks.observations, walks.actions, walks.rewards)]
    run(walks, tmp_path, "iql", small("iql"), quick(reward_transform="return-range"))
    for old, new in zip(before, (walks.observations, walks.actions, walks.rewards), strict=True):
        assert np.array_equal(old, new)


def test_reward_transforms_by_hand(walks):
    spread = walks.returns.max() - walks.returns.min()
    assert reward_transform(walks, "return-range") == (pytest.approx(1000 / spread), 0)
    assert reward_transform(walks, "minus-one") == (1, -1)
    assert reward_transform(walks, "none") == (1, 0)
    assert reward_transform(walks, "times-ten-minus-five") == (10, -5)
    level = dataclasses.replace(walks, rewards=np.zeros_like(walks.rewards))
    with pytest.raises(ConfigError, match="all episodes of dataset 'walks' have the same return"):
        reward_transform(level, "return-range")


def test_the_best_episodes_are_those_of_the_highest_return(walks):
    order = np.argsort(-walks.returns)
    assert training_episodes(walks, RunConfig(top_fraction=0.25)).tolist() == sorted(order[:2].tolist())
    assert training_episodes(walks, RunConfig(top_fraction=0.001)).tolist() == [order[0]]
    assert training_episodes(walks, RunConfig()) is None


@pytest.mark.parametrize("name", ["iql", "mopo"])
def test_updates_see_the_best_episodes_alone_and_transformed_rewards(name, walks, small, quick, tmp_path, monkeypatch):
    method, seen = METHODS[name].method_class(walks.info), []
    update = method.update

    def watch(self, batch):
        seen.append(batch)
        return update(self, batch)

    monkeypatch.setattr(method, "update", watch)
    settings = quick(top_fraction=0.25, reward_transform="times-ten-minus-five", standardize=False)
    config = small(name, real_ratio=1.0) if name == "mopo" else small(name)
    run(walks, tmp_path, name, config, settings)
    best = np.sort(np.argsort(-walks.returns)[:2])
    transitions = walks.transitions(episodes=best)
    rows = transitions.gather(torch.arange(len(transitions)))
    reward_of = dict(zip(map(tuple, rows.observations.tolist()), (10 * rows.rewards - 5).tolist(), strict=True))
    observations, rewards = torch.cat([b.observations for b in seen]), torch.cat([b.rewards for b in seen])
    # A row of another episode is not in the table.
    expected = [reward_of[tuple(row)] for row in observations.tolist()]
    np.testing.assert_allclose(rewards, expected, rtol=1e-5)
    assert len(observations) == 12 * 8


def test_unbounded_actions_are_refused(walks, small, quick, tmp_path):
    free = dataclasses.replace(walks.info, action_space=spaces.Box(-np.inf, np.inf, (2,)))
    with pytest.raises(ConfigError, match="finite bounds"):
        Scaling.of(free)
    with pytest.raises(ConfigError, match="finite bounds"):
        run(dataclasses.replace(walks, info=free), tmp_path / "run", "bc", small("bc"), quick())
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_overwritten_nor_resumed_as_something_else(walks, choices, small, quick, tmp_path):
    run(walks, tmp_path, "bc", small("bc"), quick())
    with pytest.raises(CheckpointError, match="already holds a run"):
        run(walks, tmp_path, "bc", small("bc"), quick())
    with pytest.raises(CheckpointError, match="holds a run of bc, which cannot be resumed as iql"):
        run(walks, tmp_path, "iql", small("iql"), quick(), resume=True)
    with pytest.raises(CheckpointError, match=r"learning_rate is 0\.1 and was 0\.0003; seed is 3 and was 0"):
        run(walks, tmp_path, "bc", small("bc", learning_rate=0.1), quick(seed=3), resume=True)
    with pytest.raises(CheckpointError, match="on another dataset: its id is choices and was walks"):
        run(choices, tmp_path, "bc", small("bc"), quick(), resume=True)
    changed = dataclasses.replace(walks, rewards=walks.rewards + 1)
    with pytest.raises(CheckpointError, match="content of the dataset has changed"):
        run(changed, tmp_path, "bc", small("bc"), quick(), resume=True)


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["bc", "mopo"])
@pytest.mark.parametrize("lost", ["gone", "damaged"])
def test_a_model_without_a_checkpoint_is_not_started_anew(walks, small, quick, tmp_path, name, lost):
    run(walks, tmp_path, name, small(name), quick())
    for step in (tmp_path / "training_state").iterdir():
        shutil.rmtree(step) if lost == "gone" else (step / "random.safetensors").write_bytes(b"")
    before = content(tmp_path)
    with pytest.raises(CheckpointError, match="holds a model but no complete checkpoint in training_state/"):
        run(walks, tmp_path, name, small(name), quick(), resume=True)
    assert content(tmp_path) == before


@pytest.mark.parametrize("resume", [False, True])
def test_files_that_are_no_runs_are_not_overwritten(walks, small, quick, tmp_path, resume):
    (tmp_path / "config.json").write_text("mine")
    with pytest.raises(CheckpointError, match=r"already holds config\.json, which training would overwrite: choose"):
        run(walks, tmp_path, "bc", small("bc"), quick(), resume=resume)
    assert content(tmp_path) == {tmp_path / "config.json": b"mine"}
    assert len(list(tmp_path.iterdir())) == 1


def test_a_run_stopped_while_it_wrote_its_settings_begins_again_when_it_is_resumed(
    walks, small, quick, tmp_path, monkeypatch
):
    original = checkpoint.write_json

    def stop(path, values):
        original(path, values)
        raise Stopped

    monkeypatch.setattr(checkpoint, "write_json", stop)
    with pytest.raises(Stopped):
        run(walks, tmp_path, "bc", small("bc"), quick())
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="already holds a run: resume it with --resume"):
        run(walks, tmp_path, "bc", small("bc"), quick())
    assert run(walks, tmp_path, "bc", small("bc"), quick(), resume=True).updates == 12


def test_a_number_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(walks, small, quick, tmp_path):
    wild = dataclasses.replace(walks, rewards=walks.rewards * np.float32(1e30))
    with pytest.raises(TrajplanError, match=r"critic/loss is (inf|nan) at update \d+, and nothing was saved") as caught:
        run(wild, tmp_path, "iql", small("iql"), quick())
    assert str(caught.value).endswith(f"need another --output, or {tmp_path} deleted first.")
    assert not list((tmp_path / "training_state").glob("step-*"))


def test_damaged_folders_are_named(walks, small, quick, tmp_path):
    run(walks, tmp_path, "bc", small("bc"), quick())
    config = json.loads((tmp_path / "config.json").read_text())
    for change, message in (
        ({"observation_dim": 7}, "mixed up: observation_dim is 7 in config.json and 3 in dataset.json"),
        ({"method": "iql", "settings": {}}, "does not fit its config.json"),
        ({"method": "ppo"}, "cannot read: Unknown method 'ppo'"),
        ({"model_type": "other"}, "holds a model of type 'other'"),
        ({"settings": {"depth": 3}}, "has no setting 'depth'"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(CheckpointError, match=message):
            load_baseline(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_baseline(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        load_baseline(tmp_path)


def test_cloning_learns_the_datas_actions(quick, small, tmp_path):
    rng = np.random.default_rng(0)
    path = rng.uniform(-1, 1, (201, 2)).astype(np.float32)
    actions = (path[:-1, :1] * 0.8).astype(np.float32)
    flags = np.zeros(200, bool)
    episode = {
        "observations": path,
        "actions": actions,
        "rewards": flags * 0.0,
        "terminations": flags,
        "truncations": flags,
    }
    dataset = OfflineDataset.from_episodes([episode], id="line", action_space=spaces.Box(-1, 1, (1,)))
    config = small("bc", hidden_width=32, learning_rate=1e-2, policy="deterministic")
    run(dataset, tmp_path, "bc", config, quick(updates=300, batch_size=64))
    learned = load_baseline(tmp_path).act(path[:-1], np.zeros(200), np.arange(200))
    assert np.abs(learned - actions).max() < 0.08


@pytest.mark.parametrize("where", [state, checkpoint])
def test_a_disk_that_is_full_is_one_sentence_and_the_run_resumes(
    walks, small, quick, tmp_path, monkeypatch, forked, filling, where
):
    run(walks, tmp_path / "whole", "iql", small("iql"), quick(), evaluate=noisy)
    name, file = ("save_state", "step-00000008/model") if where is state else ("save_model", "broken/model")
    broken = tmp_path / "broken"
    with monkeypatch.context() as patch:
        patch.setattr(where, name, filling(getattr(where, name), 2))
        told = forked(run, walks, broken, "iql", small("iql"), quick(), evaluate=noisy)
    assert re.fullmatch(rf"CheckpointError: [^ ]*{file}\.safetensors cannot be written: .*File too large.*\.", told)
    run(walks, broken, "iql", small("iql"), quick(), evaluate=noisy, resume=True)
    assert_same_run(tmp_path / "whole", broken)


def test_a_run_of_a_gpu_is_not_taken_for_one_of_the_cpu(walks, small, quick, tmp_path):
    run(walks, tmp_path, "iql", small("iql"), quick(updates=8, eval_every=0))
    for path in (tmp_path / "training_state").glob("step-*/random.safetensors"):
        save_file(load_file(path) | {"device": torch.zeros(16, dtype=torch.uint8)}, path)
        state = json.loads((path.parent / "state.json").read_text())
        state["sizes"][path.name] = path.stat().st_size
        (path.parent / "state.json").write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match=r"was written on another kind of device: .*random states of cpu, device"):
        run(walks, tmp_path, "iql", small("iql"), quick(updates=8, eval_every=0), resume=True)
