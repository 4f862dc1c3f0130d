"""More updates than a run was begun with."""

import json
import shutil

import torch
from safetensors.torch import load_file

from trajplan.runs.metrics import read_metrics
from trajplan.training.loop import train


def newest(folder, update):
    return load_file(folder / f"training_state/step-{update:08d}/model.safetensors")


def test_a_lengthened_run_goes_on_from_its_state_and_resumes_exactly(dataset, tiny, tmp_path, capsys):
    run = {"save_every": 10, "warmup_updates": 0, "log_every": 1, "final_learning_rate": 0.1, "learning_rate": 1e-2}
    folder = tmp_path / "run"
    train(dataset, folder, tiny(updates=20, **run))
    before = read_metrics(folder)
    capsys.readouterr()
    result = train(dataset, folder, tiny(updates=40, **run), resume=True)
    assert result.updates == 40
    told = capsys.readouterr().err
    assert "lengthened from 20 to 40 updates: the first 20 followed the learning rate of a run of 20" in told
    assert "it goes from 0.001 to 0.0053 now and ends at 0.001." in told
    lines = read_metrics(folder)
    assert lines[: len(before)] == before
    assert [line["update"] for line in lines] == list(range(1, 41))
    assert json.loads((folder / "run.json").read_text())["lengthened"] == [{"after": 20, "updates": 40, "before": 20}]
    assert json.loads((folder / "training.json").read_text())["updates"] == 40

    # As if killed after update 30, and again after it was lengthened and before it saved.
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "training_state/step-00000040")
    capsys.readouterr()
    train(dataset, copy, tiny(updates=40, **run), resume=True)
    assert "lengthened" not in capsys.readouterr().err
    one, other = newest(folder, 40), newest(copy, 40)
    assert all(torch.equal(one[name], other[name]) for name in one)
    for name in ("model.safetensors", "run.json"):
        assert (copy / name).read_bytes() == (folder / name).read_bytes()


def test_a_run_that_stopped_early_is_lengthened_with_its_patience_anew(dataset, tiny, tmp_path):
    still = {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0, "learning_rate": 0.03, "patience": 3}
    assert train(dataset, tmp_path, tiny(updates=60, **still)).updates == 20
    result = train(dataset, tmp_path, tiny(updates=80, **still), resume=True)
    assert (result.updates, result.kept, result.stopped_early) == (35, 5, True)
