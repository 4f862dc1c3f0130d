import json
import subprocess
import sys
import warnings
from dataclasses import replace

import minari
import numpy as np
import pytest
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer

from trajplan.cli import main
from trajplan.planners.imitation import ImitationConfig
from trajplan.planners.settings import saved_planner
from trajplan.presets import PRESETS
from trajplan.runs.metrics import read_metrics
from trajplan.training.checkpoint import load_model_folder

SMALL = ["--preset", "tt_debug", "--updates", "6", "--save-every", "4", "--log-every", "2"]


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """The id of a Minari dataset of 6 episodes in a root of its own."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("TRAJPLAN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "minari").mkdir()
    rng = np.random.default_rng(0)
    buffers = [
        EpisodeBuffer(
            observations=rng.normal(size=(13, 3)).astype(np.float32),
            actions=rng.uniform(-1, 1, (12, 2)).astype(np.float32),
            rewards=list(rng.normal(size=12)),
            terminations=[False] * 12,
            truncations=[False] * 11 + [True],
        )
        for _ in range(6)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers(
            "toy/hopper/medium-replay-v0",
            buffers,
            observation_space=spaces.Box(-np.inf, np.inf, (3,), np.float32),
            action_space=spaces.Box(-1, 1, (2,), np.float32),
        )
    return "toy/hopper/medium-replay-v0"


def test_trains_with_a_named_preset_and_flags_over_it(dataset, tmp_path, capsys):
    assert main(["train", "--dataset", dataset, "--output", str(tmp_path / "run"), *SMALL, "--window", "3"]) == 0
    assert "Preset tt_debug on toy/hopper" in capsys.readouterr().out
    loaded = load_model_folder(tmp_path / "run")
    assert (loaded.train_config.updates, loaded.train_config.window, loaded.train_config.n_embd) == (6, 3, 32)
    planner = saved_planner(tmp_path / "run")
    assert (planner.horizon, planner.beam_width, planner.discount) == (2, 4, loaded.discount)
    assert loaded.info.id == dataset
    assert [line["update"] for line in read_metrics(tmp_path / "run")] == [2, 4, 6]


def test_a_small_window_takes_a_small_context(dataset, tmp_path, capsys):
    command = ["train", "--dataset", dataset, "--output", str(tmp_path / "run"), *SMALL, "--window", "2"]
    assert main(command) == 2
    assert "context is 2 transitions, the model's window 2" in capsys.readouterr().err
    assert main([*command, "--context", "1"]) == 0
    assert saved_planner(tmp_path / "run").context == 1
    assert main(["train", "--resume", "--output", str(tmp_path / "run"), "--context", "0"]) == 2
    assert "leave --context out, and give trajplan evaluate --context 0" in capsys.readouterr().err


def test_the_same_command_resumes_a_run_whose_context_is_not_its_presets(dataset, tmp_path):
    command = ["train", "--dataset", dataset, "--output", str(tmp_path / "run"), *SMALL, "--window", "2"]
    assert main([*command, "--context", "1"]) == 0
    assert main([*command, "--context", "1", "--resume"]) == 0
    assert main([*command, "--resume"]) == 0
    assert saved_planner(tmp_path / "run").context == 1


def test_a_presets_planner_may_be_any(dataset, tmp_path, monkeypatch):
    row = replace(PRESETS["tt_debug"], type="imitation", planner={"beam_width": 3, "context": 2})
    monkeypatch.setitem(PRESETS, "tt_debug", row)
    assert main(["train", "--dataset", dataset, "--output", str(tmp_path / "run"), *SMALL]) == 0
    assert saved_planner(tmp_path / "run") == ImitationConfig(beam_width=3, context=2)


@pytest.fixture
def second(dataset):
    """The id of another dataset of the same spaces, of 4 episodes."""
    from trajplan.data.dataset import OfflineDataset

    first = OfflineDataset.from_minari(dataset)
    episodes = [
        {
            "observations": first.observations[13 * e : 13 * (e + 1)] + 1.0,
            **{name: getattr(first, name)[12 * e : 12 * (e + 1)] for name in ("actions", "rewards")},
            **{name: getattr(first, name)[12 * e : 12 * (e + 1)] for name in ("terminations", "truncations")},
        }
        for e in range(4)
    ]
    spaces = {"observation_space": first.info.observation_space, "action_space": first.info.action_space}
    OfflineDataset.from_episodes(episodes, **spaces).save("toy/hopper/medium-v0")
    return "toy/hopper/medium-v0"


def test_several_datasets_train_as_one(dataset, second, tmp_path, capsys):
    output = str(tmp_path / "run")
    assert main(["train", "--dataset", dataset, second, "--output", output, *SMALL]) == 0
    assert f"on {dataset} + {second}" in capsys.readouterr().out
    values = json.loads((tmp_path / "run" / "dataset.json").read_text())
    assert values["sources"] == [
        {"id": dataset, "num_episodes": 6, "num_transitions": 72},
        {"id": second, "num_episodes": 4, "num_transitions": 48},
    ]
    assert values["num_transitions"] == 120
    card = (tmp_path / "run" / "README.md").read_text()
    assert f"datasets:\n- {dataset}\n- {second}\n" in card
    assert f"`{dataset} + {second}`" in card
    assert f"| of {second} | 4 episodes, 48 transitions |" in card
    # The run knows them, and keeps to them.
    assert main(["train", "--resume", "--output", output]) == 0
    assert f"on {dataset} + {second}" in capsys.readouterr().out
    assert main(["train", "--resume", "--dataset", dataset, "--output", output]) == 2
    assert f"its id is {dataset} and was {dataset} + {second}" in capsys.readouterr().err


def test_runs_that_know_one_id_only_are_resumed(dataset, tmp_path, capsys):
    """As written before there were several."""
    output = tmp_path / "run"
    assert main(["train", "--dataset", dataset, "--output", str(output), *SMALL]) == 0
    values = json.loads((output / "dataset.json").read_text())
    del values["sources"]
    (output / "dataset.json").write_text(json.dumps(values))
    assert main(["train", "--resume", "--output", str(output)]) == 0
    assert f"Resuming {output}, on {dataset}." in capsys.readouterr().out
    assert load_model_folder(output).info.id == dataset


def test_the_preset_is_chosen_by_the_dataset_and_said(dataset, tmp_path, capsys):
    small = ["--n-layer", "1", "--n-embd", "8", "--updates", "1", "--batch-size", "4"]
    assert main(["train", "--dataset", dataset, "--output", str(tmp_path / "run"), *small]) == 0
    assert "Preset tt_small_locomotion (72 transitions are few) on" in capsys.readouterr().out
    config = load_model_folder(tmp_path / "run").train_config
    assert config.epochs == pytest.approx(11)
    assert (config.bins, config.n_layer) == (50, 1)
    named = ["--preset", "tt_hopper_medium_replay", *small]
    assert main(["train", "--dataset", dataset, "--output", str(tmp_path / "named"), *named]) == 0
    assert "Preset tt_hopper_medium_replay on" in capsys.readouterr().out
    assert load_model_folder(tmp_path / "named").train_config.epochs == pytest.approx(80 * 1_000_000 / 72)


def test_an_interrupted_run_says_how_to_resume_and_does(dataset, tmp_path, capsys, monkeypatch):
    import signal

    from trajplan.training import loop

    output, original, done = tmp_path / "run", loop.gradients, []

    def interrupted(*args):
        done.append(signal.raise_signal(signal.SIGINT) if len(done) == 2 else None)
        return original(*args)

    monkeypatch.setattr(loop, "gradients", interrupted)
    assert main(["train", "--dataset", dataset, "--output", str(output), *SMALL]) == 130
    assert f"trajplan train --resume --output {output}" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("TRAJPLAN_CACHE", str(tmp_path / "cache"))
    assert main(["train", "--resume", "--output", str(output)]) == 0
    assert read_metrics(output)[-1]["update"] == 6

    assert main(["train", "--resume", "--output", str(output), "--learning-rate", "0.5"]) == 2
    assert "learning_rate is 0.5 and was 0.0006" in capsys.readouterr().err
    assert main(["train", "--dataset", dataset, "--output", str(output), *SMALL]) == 2
    assert "already holds a run: resume it with --resume" in capsys.readouterr().err


def test_resuming_before_anything_was_saved_starts_from_the_beginning(dataset, tmp_path, capsys):
    arguments = ["train", "--output", str(tmp_path / "run"), "--resume"]
    assert main(arguments) == 2
    assert "holds no run to resume" in capsys.readouterr().err
    assert main([*arguments, "--dataset", dataset, *SMALL]) == 0
    assert "starting from the beginning" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["train"], ["baseline", "bc"]])
def test_a_folder_with_files_of_the_users_is_refused_before_anything_is_said_or_read(tmp_path, capsys, command):
    (tmp_path / "config.json").write_text("mine")
    assert main([*command, "--dataset", "there/is-none-v0", "--output", str(tmp_path), "--resume"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"{tmp_path} already holds config.json, which training would overwrite" in captured.err
    assert (tmp_path / "config.json").read_text() == "mine"


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--preset", "tt_nosuch"], "tt_nosuch"),
        (["--n-embd", "30"], "n_embd"),
        (["--batch-size", "9", "--accumulation", "2"], "batch_size is 9"),
        (["--trackers", "nosuch"], "trackers"),
        (
            ["--preset", "tt_default", "--window", "5", "--updates", "1"],
            "context is 5 transitions, the model's window 5",
        ),
    ],
)
def test_bad_settings_are_one_sentence_and_leave_nothing(dataset, tmp_path, capsys, flags, named):
    assert main(["train", "--dataset", dataset, "--output", str(tmp_path / "run"), *flags]) == 2
    error = capsys.readouterr().err
    assert named in error
    assert "trajplan: error: " in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("preset", [[], ["--preset", "tt_default"]])
def test_a_baselines_run_is_not_resumed(dataset, tmp_path, capsys, preset):
    folder = tmp_path / "run"
    write = ["--dataset", dataset, "--output", str(folder), "--updates", "1", "--eval-every", "0", "--device", "cpu"]
    assert main(["baseline", "bc", *write, "--batch-size", "4"]) == 0
    assert main(["train", "--resume", "--output", str(folder), *preset]) == 2
    assert f"error: {folder} holds a run of bc, which trajplan train cannot resume: " in capsys.readouterr().err
    assert json.loads((folder / "config.json").read_text())["method"] == "bc"


def test_a_dataset_that_does_not_exist_is_named(dataset, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MINARI_REMOTE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["train", "--dataset", "toy/none/at-all-v0", "--output", str(tmp_path / "run")]) == 2
    assert "toy/none/at-all-v0" in capsys.readouterr().err


def test_help_documents_every_setting_without_loading_torch():
    program = "import sys; from trajplan.cli import main\ntry: main(['train', '--help'])\nexcept SystemExit: pass\n"
    program += "sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for flag in ("--batch-size", "--resume", "--preset", "--gradient-checkpointing", "--termination-penalty"):
        assert flag in done.stdout


def test_the_end_tells_which_weights_are_kept(dataset, tmp_path, capsys):
    often = ["--eval-every", "2", "--held-out", "0.3", "--patience", "1", "--learning-rate", "5", "--updates", "60"]
    command = ["train", "--dataset", dataset, "--output", str(tmp_path / "run"), *SMALL, *often]
    assert main(command) == 0
    run = json.loads((tmp_path / "run/run.json").read_text())
    updates, kept, loss = run["updates"], run["weights"]["update"], run["weights"]["held_out_loss"]
    assert kept < updates < 60
    out = capsys.readouterr().out
    assert f"Trained for {updates} updates, and stopped as the held-out loss no longer fell" in out
    assert f"the weights are those of update {kept}, of the lowest held-out loss, {loss:.3f}." in out
    said = f"The weights are those of update {kept} of {updates}, of the lowest loss on held-out episodes ({loss:.4f}"
    assert said in (tmp_path / "run/README.md").read_text()
    assert main([*command, "--resume"]) == 0
    assert json.loads((tmp_path / "run/run.json").read_text()) == run


def test_help_groups_the_settings(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    shown = capsys.readouterr().out
    places = [shown.index(f"\n{name} settings") for name in ("model", "tokens", "loss", "optimiser", "run")]
    assert places == sorted(places)
    for flag, place in (("--n-layer", 0), ("--bins", 1), ("--action-weight", 2), ("--learning-rate", 3), ("--seed", 4)):
        assert max(i for i, start in enumerate(places) if start < shown.rindex(f"\n  {flag}")) == place


def test_python_trains_as_the_command_does(dataset, tmp_path):
    import trajplan

    run = {"updates": 6, "save_every": 4, "log_every": 2}
    result = trajplan.train(dataset, tmp_path / "python", preset="tt_debug", device="cpu", **run)
    assert (result.updates, result.interrupted) == (6, False)
    assert main(["train", "--dataset", dataset, "--output", str(tmp_path / "command"), *SMALL, "--device", "cpu"]) == 0
    for name in ("model.safetensors", "planner.json", "training.json"):
        assert (tmp_path / "python" / name).read_bytes() == (tmp_path / "command" / name).read_bytes()
    assert (tmp_path / "python/README.md").exists()
    assert trajplan.train(None, tmp_path / "python", resume=True).updates == 6
    # Another precision in the same process.
    trajplan.train(dataset, tmp_path / "bf16", preset="tt_debug", updates=1, precision="bf16")


def test_a_device_that_is_not_there_is_one_sentence(dataset, tmp_path, capsys):
    arguments = ["train", "--dataset", dataset, "--output", str(tmp_path / "run"), *SMALL, "--device", "cuda:77"]
    assert main(arguments) == 2
    assert "There is no device 'cuda:77' here" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_one_process_where_two_were_asked_for_is_refused_with_the_line_to_type(dataset, tmp_path, capsys, monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    assert main(["train", "--dataset", dataset, "--output", str(tmp_path / "run"), *SMALL]) == 2
    assert "ACCELERATE_USE_CPU=1 torchrun --nproc_per_node 2 -m trajplan train" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_processes_on_a_cpu_train_by_the_documented_line(dataset, tmp_path):
    import os

    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "trajplan", "train", "--dataset", dataset, "--output", str(tmp_path / "run"), *SMALL]
    done = subprocess.run(command, env=os.environ | {"ACCELERATE_USE_CPU": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "on 2 x cpu" in done.stderr
    assert done.stdout.count("Trained for 6 updates") == 1
    about = json.loads((tmp_path / "run/training_state/step-00000006/state.json").read_text())
    assert about["processes"] == 2


@pytest.mark.parametrize(
    ("environment", "said"), [({"ACCELERATE_USE_CPU": "1"}, "ACCELERATE_USE_CPU keeps"), ({}, "its own GPU")]
)
def test_a_gpu_that_training_may_not_take_is_refused(monkeypatch, environment, said):
    import torch

    from trajplan.errors import ConfigError
    from trajplan.training import loop

    monkeypatch.setattr(loop, "choose_device", torch.device)
    for name, value in ({"WORLD_SIZE": "2"} | environment).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=said):
        loop.uses_gpu("cuda:1")
