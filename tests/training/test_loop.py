import json
import math
import os
import re
import shutil
import signal
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import nn

from trajplan import files
from trajplan.data.dataset import OfflineDataset
from trajplan.errors import CheckpointError, ConfigError, DataError, TrajplanError
from trajplan.models.trajectory_transformer import KINDS
from trajplan.runs import bar, state
from trajplan.runs.metrics import MetricsFile, read_metrics
from trajplan.training import checkpoint, loop
from trajplan.training.loop import train

TIMES = ("seconds", "tokens_per_second")


def numbers(folder):
    """metrics.jsonl without its times."""
    return [{k: v for k, v in line.items() if k not in TIMES} for line in read_metrics(folder)]


def same_weights(a, b):
    a, b = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Killed(BaseException):
    """Stands in for SIGKILL at a chosen line."""


@pytest.fixture(scope="module")
def unbroken(dataset, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    torch.set_num_threads(1)
    result = train(dataset, folder, tiny())
    assert (result.updates, result.interrupted) == (12, False)
    return folder


def test_the_folder_holds_everything(unbroken, dataset, tiny):
    names = {path.name for path in unbroken.iterdir()}
    assert names == {
        *("config.json", "model.safetensors", "tokenizer.json", "tokenizer.safetensors", "dataset.json"),
        *("training.json", "metrics.jsonl", "run.json", "training_state"),
    }
    loaded = checkpoint.load_model_folder(unbroken)
    assert loaded.info.id == "walks"
    assert loaded.train_config == tiny(updates=12)
    assert (loaded.discount, loaded.termination_penalty) == (0.99, -100.0)
    assert not loaded.model.training
    assert loaded.tokenizer.sizes.tolist() == loaded.model.config.bin_counts


def test_metrics_have_a_line_at_their_cadence(unbroken):
    lines = read_metrics(unbroken)
    assert [line["update"] for line in lines] == [2, 4, 5, 6, 8, 10, 12]
    assert [line["update"] for line in lines if "held_out/loss" in line] == [5, 10, 12]
    assert set(lines[-1]) == {
        *("update", "epoch", "loss", "gradient_norm", "learning_rate", *TIMES, "held_out/loss"),
        *(f"{prefix}/{kind}" for prefix in ("loss", "held_out") for kind in KINDS),
    }
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert lines[-1]["learning_rate"] == pytest.approx(1e-3)


def test_held_out_loss_is_that_of_the_saved_model_on_unseen_episodes(unbroken, dataset, tiny):
    loaded = checkpoint.load_model_folder(unbroken)
    _, held_out = dataset.split(0.2, 0)
    windows = dataset.windows(4, episodes=held_out)
    table = loop.TokenTable(dataset, loaded.tokenizer, tiny(), torch.device("cpu"))
    chosen = torch.tensor([i * len(windows) // min(13, len(windows)) for i in range(min(13, len(windows)))])
    batch = table.batch(*windows.gather_rows(chosen))
    output = loaded.model(batch.tokens, targets=batch.targets, valid=batch.valid)
    best = min((line for line in read_metrics(unbroken) if "held_out/loss" in line), key=lambda x: x["held_out/loss"])
    assert best["held_out/loss"] == pytest.approx(output.loss.item(), rel=1e-5)
    for kind, value in output.losses.items():
        assert best[f"held_out/{kind}"] == pytest.approx(value.item(), rel=1e-5)


def test_another_seed_gives_another_run(unbroken, dataset, tiny, tmp_path):
    train(dataset, tmp_path / "run", tiny(seed=1))
    assert not same_weights(tmp_path / "run", unbroken)


# Where a run may be killed: before (or after) which call of what.
MOMENTS = [
    (checkpoint, "save_settings", 0, "before"),
    (checkpoint, "save_settings", 0, "after"),
    (files.os, "replace", 2, "after"),
    (loop, "_update", 2, "after"),
    (loop, "_update", 6, "before"),
    (state, "write_tensors", 4, "before"),
    (state, "write_json", 1, "after"),
    (files.os, "rename", 1, "after"),
    (checkpoint, "save_model", 2, "before"),
    (files.os, "replace", 21, "after"),
]


@pytest.mark.parametrize(("module", "name", "calls", "when"), MOMENTS)
def test_killed_and_resumed_is_bit_identical(unbroken, dataset, tiny, tmp_path, monkeypatch, module, name, calls, when):
    original, count = getattr(module, name), 0

    def killed(*args, **kwargs):
        nonlocal count
        count += 1
        if count == calls + 1 and when == "before":
            raise Killed
        result = original(*args, **kwargs)
        if count == calls + 1:
            raise Killed
        return result

    folder = tmp_path / "run"
    monkeypatch.setattr(module, name, killed)
    with pytest.raises(Killed):
        train(dataset, folder, tiny())
    monkeypatch.undo()
    torch.manual_seed(12345)
    result = train(dataset, folder, tiny(), resume=True)
    assert (result.updates, result.interrupted) == (12, False)
    assert numbers(folder) == numbers(unbroken)
    assert same_weights(folder, unbroken)
    assert (folder / "run.json").read_bytes() == (unbroken / "run.json").read_bytes()
    newest = "training_state/step-00000012"
    for file in (*state.FILES, state.KEPT_WEIGHTS):
        assert (folder / newest / file).read_bytes() == (unbroken / newest / file).read_bytes()
    assert not [path for path in folder.rglob("*") if path.name.startswith(files.PARTIAL)]


def test_a_finished_run_resumes_to_itself(unbroken, dataset, tiny, tmp_path):
    folder = tmp_path / "run"
    train(dataset, folder, tiny())
    result = train(dataset, folder, tiny(), resume=True)
    assert (result.updates, result.interrupted) == (12, False)
    assert numbers(folder) == numbers(unbroken)
    assert same_weights(folder, unbroken)


def test_the_cadence_of_checkpoints_changes_nothing(unbroken, dataset, tiny, tmp_path):
    train(dataset, tmp_path / "run", tiny(save_every=100))
    assert same_weights(tmp_path / "run", unbroken)
    assert numbers(tmp_path / "run") == numbers(unbroken)


def test_two_checkpoints_are_kept(unbroken):
    assert sorted(p.name for p in (unbroken / "training_state").iterdir()) == ["step-00000008", "step-00000012"]


def test_who_can_read_the_settings_can_read_the_checkpoints(unbroken):
    modes = {path.stat().st_mode for path in unbroken.rglob("*") if path.is_file()}
    assert len(modes) == 1


def test_resume_falls_back_on_an_older_checkpoint_that_is_whole(unbroken, dataset, tiny, tmp_path):
    folder = tmp_path / "run"
    train(dataset, folder, tiny())
    damaged = folder / "training_state/step-00000012/optimizer.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    train(dataset, folder, tiny(), resume=True)
    assert numbers(folder) == numbers(unbroken)
    assert same_weights(folder, unbroken)


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("lost", ["gone", "damaged"])
def test_a_model_without_a_checkpoint_is_not_started_anew(dataset, tiny, tmp_path, lost):
    folder = tmp_path / "run"
    train(dataset, folder, tiny())
    for step in (folder / "training_state").iterdir():
        shutil.rmtree(step) if lost == "gone" else (step / "optimizer.safetensors").write_bytes(b"")
    before = content(folder)
    with pytest.raises(CheckpointError, match="holds a model but no complete checkpoint in training_state/"):
        train(dataset, folder, tiny(), resume=True)
    assert content(folder) == before


def test_a_run_is_not_overwritten(unbroken, dataset, tiny):
    before = content(unbroken)
    with pytest.raises(CheckpointError, match="--resume"):
        train(dataset, unbroken, tiny())
    assert content(unbroken) == before


@pytest.mark.parametrize("resume", [False, True])
def test_files_that_are_no_runs_are_not_overwritten(dataset, tiny, tmp_path, resume):
    for name in ("dataset.json", "notes.txt"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(CheckpointError, match=r"already holds dataset\.json, which training would overwrite: choose"):
        train(dataset, tmp_path, tiny(), resume=resume)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset.json", "notes.txt"]
    (tmp_path / "dataset.json").unlink()
    train(dataset, tmp_path, tiny(updates=1), resume=resume)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("changes", "named"), [({"seed": 4}, "seed is 4 and was 0"), ({"updates": 8}, "updates is 8 and was 12")]
)
def test_other_settings_are_not_resumed(unbroken, dataset, tiny, changes, named):
    with pytest.raises(CheckpointError, match=named):
        train(dataset, unbroken, tiny(**changes), resume=True)


def test_another_dataset_is_not_resumed(unbroken, dataset, tiny):
    fields = {name: getattr(dataset, name) for name in dataset.__dataclass_fields__}
    scaled = OfflineDataset(**fields | {"rewards": dataset.rewards * 2})
    with pytest.raises(CheckpointError, match="content of the dataset has changed"):
        train(scaled, unbroken, tiny(), resume=True)
    episodes = [
        {
            "observations": dataset.observations[: dataset.offsets[1] + 1],
            "actions": dataset.actions[: dataset.offsets[1]],
            "rewards": dataset.rewards[: dataset.offsets[1]],
            "terminations": dataset.terminations[: dataset.offsets[1]],
            "truncations": dataset.truncations[: dataset.offsets[1]],
        }
    ] * 2
    other = OfflineDataset.from_episodes(episodes, id="walks")
    with pytest.raises(CheckpointError, match="num_transitions is 18 and was 100"):
        train(other, unbroken, tiny(), resume=True)


def test_another_number_of_processes_is_not_resumed(unbroken, dataset, tiny, tmp_path):
    folder = tmp_path / "run"
    train(dataset, folder, tiny())
    about = json.loads((folder / "training_state/step-00000012/state.json").read_text())
    (folder / "training_state/step-00000012/state.json").write_text(json.dumps(about | {"processes": 2}))
    with pytest.raises(CheckpointError, match="2 processes and this run has 1"):
        train(dataset, folder, tiny(), resume=True)


def test_a_run_of_a_gpu_is_not_resumed_on_a_cpu(dataset, tiny, tmp_path):
    folder = tmp_path / "run"
    train(dataset, folder, tiny(updates=4))
    step = folder / "training_state/step-00000004"
    states = load_file(step / "random.safetensors") | {"0/device": torch.zeros(16, dtype=torch.uint8)}
    save_file(states, step / "random.safetensors")
    about = json.loads((step / "state.json").read_text())
    about["sizes"]["random.safetensors"] = (step / "random.safetensors").stat().st_size
    (step / "state.json").write_text(json.dumps(about))
    before = content(folder)
    with pytest.raises(
        CheckpointError, match=r"was written on another kind of device: .* cpu, device and .* on cpu; resume"
    ):
        train(dataset, folder, tiny(updates=4), resume=True)
    assert content(folder) == before


def without_dropout(tiny, **changes):
    return tiny(embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0, **changes)


def close(a, b, rel=1e-4):
    for x, y in zip(numbers(a), numbers(b), strict=True):
        assert x.keys() == y.keys()
        for name in x:
            assert x[name] == pytest.approx(y[name], rel=rel), name


def test_memory_savers_leave_the_losses_alone(dataset, tiny, tmp_path):
    train(dataset, tmp_path / "plain", without_dropout(tiny))
    for number, changes in enumerate([{"accumulation": 2}, {"accumulation": 8}, {"gradient_checkpointing": True}]):
        saver = tmp_path / str(number)
        train(dataset, saver, without_dropout(tiny, **changes))
        close(tmp_path / "plain", saver)


def test_gradient_checkpointing_runs_every_block_twice(dataset, tiny, tmp_path, monkeypatch):
    from transformers.models.gpt2.modeling_gpt2 import GPT2MLP

    calls, original = [], GPT2MLP.forward
    monkeypatch.setattr(GPT2MLP, "forward", lambda self, x: calls.append(torch.is_grad_enabled()) or original(self, x))
    train(dataset, tmp_path / "run", tiny(gradient_checkpointing=True, held_out=0.0, updates=1))
    assert len(calls) == 2 * 2


def test_bf16_computes_in_bf16_and_keeps_weights_in_float32(dataset, tiny, tmp_path, monkeypatch):
    from transformers.models.gpt2.modeling_gpt2 import GPT2MLP

    kinds, original = set(), GPT2MLP.forward

    def forward(self, x):
        y = original(self, x)
        kinds.add(y.dtype)
        return y

    monkeypatch.setattr(GPT2MLP, "forward", forward)
    train(dataset, tmp_path / "run", tiny(precision="bf16"))
    assert kinds == {torch.bfloat16}
    weights = load_file(tmp_path / "run/model.safetensors")
    assert {w.dtype for name, w in weights.items() if name != "illegal"} == {torch.float32}
    assert read_metrics(tmp_path / "run")[-1]["loss"] < read_metrics(tmp_path / "run")[0]["loss"]


def test_bf16_resumes_exactly_and_follows_the_seed(dataset, tiny, tmp_path, monkeypatch):
    train(dataset, tmp_path / "whole", tiny(precision="bf16"))
    train(dataset, tmp_path / "again", tiny(precision="bf16"))
    assert same_weights(tmp_path / "whole", tmp_path / "again")
    shutil.rmtree(tmp_path / "again/training_state/step-00000012")
    # Another machine, where auto would be otherwise: the run keeps what it was settled to.
    monkeypatch.setattr(loop, "cpu_gains_by_bf16", lambda: False)
    train(dataset, tmp_path / "again", tiny(precision="auto", attention="auto"), resume=True)
    assert numbers(tmp_path / "again") == numbers(tmp_path / "whole")
    assert same_weights(tmp_path / "whole", tmp_path / "again")


@pytest.mark.parametrize(("gains", "precision"), [(True, "bf16"), (False, "no")])
def test_a_cpu_computes_in_what_it_gains_by(dataset, tiny, tmp_path, monkeypatch, gains, precision):
    monkeypatch.setattr(loop, "cpu_gains_by_bf16", lambda: gains)
    train(dataset, tmp_path / "run", tiny(precision="auto", attention="auto", updates=1), device="cpu")
    saved = json.loads((tmp_path / "run/training.json").read_text())
    assert (saved["precision"], saved["attention"]) == (precision, "causal_blocks")


def test_a_run_of_a_version_without_choice_of_attention_resumes_with_its_own(dataset, tiny, tmp_path):
    train(dataset, tmp_path / "run", tiny(attention="sdpa"))
    training = json.loads((tmp_path / "run/training.json").read_text())
    del training["attention"]
    (tmp_path / "run/training.json").write_text(json.dumps(training))
    shutil.copytree(tmp_path / "run", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed/training_state/step-00000012")
    train(dataset, tmp_path / "resumed", tiny(attention="auto"), resume=True)
    assert same_weights(tmp_path / "run", tmp_path / "resumed")


def test_attention_of_a_package_that_is_not_there_is_refused_before_anything_is_written(dataset, tiny, tmp_path):
    with pytest.raises(ConfigError, match="attention is flash_attention_2, whose package is not installed"):
        train(dataset, tmp_path / "run", tiny(attention="flash_attention_2"))
    assert not (tmp_path / "run").exists()


def test_compile_is_asked_of_the_model_only_when_set(dataset, tiny, tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(type(self).__name__))
    train(dataset, tmp_path / "plain", tiny(updates=1))
    assert compiled == []
    train(dataset, tmp_path / "compiled", tiny(updates=1, compile=True))
    assert compiled == ["TrajectoryTransformer"]


def test_a_loss_that_is_not_finite_stops_before_it_is_applied(dataset, tiny, tmp_path, monkeypatch):
    folder, original = tmp_path / "run", loop.gradients
    calls = 0

    def broken(*args):
        nonlocal calls
        calls += 1
        return original(*args) * (math.nan if calls == 7 else 1.0)

    monkeypatch.setattr(loop, "gradients", broken)
    with pytest.raises(TrajplanError, match=r"loss is nan at update 7.*episodes [\d, ]+;.*step-00000004") as caught:
        train(dataset, folder, tiny())
    assert str(caught.value).endswith(f"need another --output, or {folder} deleted first.")
    named = {int(n) for n in str(caught.value).split("episodes ")[1].split(";")[0].split(",")}
    training, _ = dataset.split(0.2, 0)
    assert named <= set(training.tolist())
    assert [line["update"] for line in read_metrics(folder)] == [2, 4, 5, 6]
    assert state.newest_state(folder / "training_state").name == "step-00000004"


def test_weights_that_overflow_stop_the_run(dataset, tiny, tmp_path):
    with pytest.raises(TrajplanError, match=r"none was saved yet"):
        train(dataset, tmp_path / "run", tiny(learning_rate=1e30, warmup_updates=0))


def test_without_held_out_episodes_all_are_trained_on(dataset, tiny, tmp_path):
    train(dataset, tmp_path / "run", tiny(held_out=0.0, updates=3))
    assert not any("held_out/loss" in line for line in read_metrics(tmp_path / "run"))


def test_one_episode_cannot_be_held_out(dataset, tiny, tmp_path):
    stop = int(dataset.offsets[1])
    fields = ("actions", "rewards", "terminations", "truncations")
    episode = {name: getattr(dataset, name)[:stop] for name in fields}
    one = OfflineDataset.from_episodes([episode | {"observations": dataset.observations[: stop + 1]}])
    with pytest.raises(DataError, match="one episode"):
        train(one, tmp_path / "run", tiny())
    assert not (tmp_path / "run").exists()
    train(one, tmp_path / "run", tiny(held_out=0.0, updates=1))


def test_tensorboard_gets_the_metrics(dataset, tiny, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(dataset, tmp_path / "run", tiny(trackers="tensorboard"))
    events = EventAccumulator(str(tmp_path / "run/trackers/trajplan"))
    events.Reload()
    lines = [line for line in read_metrics(tmp_path / "run") if "held_out/loss" in line]
    logged = [(event.step, event.value) for event in events.Scalars("held_out/loss")]
    assert logged == [(line["update"], pytest.approx(line["held_out/loss"])) for line in lines]


def test_a_tracker_that_is_not_installed_is_named(dataset, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("trajplan.runs.trackers.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install wandb"):
        train(dataset, tmp_path / "run", tiny(trackers="wandb"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_update_it_came_in(unbroken, dataset, tiny, tmp_path, monkeypatch, number):
    folder, original = tmp_path / "run", loop.gradients

    def interrupted(*args):
        if len(list(folder.glob("metrics.jsonl"))) and read_metrics(folder)[-1:] and not signalled:
            signalled.append(os.kill(os.getpid(), number))
        return original(*args)

    signalled = []
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr(loop, "gradients", interrupted)
    result = train(dataset, folder, tiny())
    assert result.interrupted
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert state.newest_state(folder / "training_state").name == f"step-{result.updates:08d}"
    assert not train(dataset, folder, tiny(), resume=True).interrupted
    assert same_weights(folder, unbroken)
    assert numbers(folder) == numbers(unbroken)


@pytest.mark.parametrize(
    ("owner", "name", "calls", "written"),
    [
        (state, "save_state", 2, r"step-00000008/model\.safetensors"),
        (checkpoint, "save_model", 2, r"run/model\.safetensors"),
        (MetricsFile, "write", 5, r"run/metrics\.jsonl"),
    ],
)
def test_a_disk_that_is_full_is_one_sentence_and_the_run_resumes(
    unbroken, dataset, tiny, tmp_path, monkeypatch, forked, filling, owner, name, calls, written
):
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, filling(getattr(owner, name), calls))
        told = forked(train, dataset, tmp_path / "run", tiny())
    assert re.fullmatch(rf"CheckpointError: [^ ]*{written} cannot be written: [^.;]*File too large[^.;]*; .*\.", told)
    train(dataset, tmp_path / "run", tiny(), resume=True)
    assert same_weights(tmp_path / "run", unbroken)
    assert numbers(tmp_path / "run") == numbers(unbroken)


def test_whoever_trains_is_told_once_that_the_folder_is_there(dataset, tiny, tmp_path):
    begun = []
    train(dataset, tmp_path / "run", tiny(updates=2), begun=begun.append)
    train(dataset, tmp_path / "run", tiny(updates=2), resume=True, begun=begun.append)
    assert begun == [tmp_path / "run"]


def test_an_output_that_cannot_be_made_is_named(dataset, tiny, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CheckpointError, match="file/run cannot be made"):
        train(dataset, tmp_path / "file/run", tiny())


def test_the_seconds_of_a_run_are_those_of_all_its_measurements(dataset, tiny, tmp_path, monkeypatch):
    clock, measured, update = [0.0], loop.HeldOut.losses, loop._update

    def slow(*args):
        clock[0] += 100
        return measured(*args)

    def killed(run, interrupted):
        if run.done == 4:
            raise Killed
        return update(run, interrupted)

    config = tiny(log_every=4, eval_every=4)
    monkeypatch.setattr("trajplan.runs.record.time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(loop.HeldOut, "losses", slow)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_update", killed)
        with pytest.raises(Killed):
            train(dataset, tmp_path, config)
    # Between the two processes time passes that is not the run's.
    clock[0] += 5000
    train(dataset, tmp_path, config, resume=True)
    assert [line["seconds"] for line in read_metrics(tmp_path)] == [100, 200, 300]
    assert json.loads((tmp_path / "training_state/step-00000012/state.json").read_text())["seconds"] == 300


def test_a_measurement_is_told_with_speed_and_time_left(dataset, tiny, tmp_path, capsys):
    train(dataset, tmp_path / "run", tiny(updates=6))
    told = capsys.readouterr().err
    assert re.search(r"update 5: loss [\d.]+, held-out [\d.]+ \(observation .*\), [\d,]+ tokens/s, 00:\d\d left", told)
    assert "6 updates of 448 tokens" in told


def test_the_speed_of_the_updates_leaves_out_the_measurements(dataset, tiny, tmp_path, monkeypatch):
    clock, measured, update = [0.0], loop.HeldOut.losses, loop._update

    def taking(seconds, function):
        def timed(*args):
            clock[0] += seconds
            return function(*args)

        return timed

    monkeypatch.setattr(bar, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(loop.HeldOut, "losses", taking(100, measured))
    monkeypatch.setattr(loop, "_update", taking(2, update))
    train(dataset, tmp_path, tiny(log_every=4, eval_every=4))
    assert [line["tokens_per_second"] for line in read_metrics(tmp_path)] == [448 / 2] * 3


def test_a_process_that_has_set_accelerate_up_keeps_its_precision(dataset, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("trajplan.training.loop.gains_by_bf16", lambda device=None: True)
    Accelerator(cpu=True, mixed_precision="no")
    train(dataset, tmp_path / "run", tiny(updates=2, precision="auto"), device="cpu")
    assert json.loads((tmp_path / "run/training.json").read_text())["precision"] == "no"
