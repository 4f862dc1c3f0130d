"""Two gloo processes on the CPU."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from trajplan.runs.metrics import read_metrics
from trajplan.training.loop import train


@pytest.mark.parametrize(("precision", "tolerance"), [("no", 1e-4), ("bf16", 1e-2)])
def test_two_processes_give_the_losses_of_one(trainer, dataset, tiny, tmp_path, precision, tolerance):
    # In bfloat16 the sums over a batch are rounded part by part.
    still = {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0, "precision": precision}
    trainer.run("train", dataset, tmp_path / "two", tiny(**still, accumulation=2), processes=2)
    train(dataset, tmp_path / "one", tiny(**still))
    for one, two in zip(read_metrics(tmp_path / "one"), read_metrics(tmp_path / "two"), strict=True):
        assert one.keys() == two.keys()
        for name in one.keys() - {"seconds", "tokens_per_second"}:
            assert two[name] == pytest.approx(one[name], rel=tolerance), name


def test_two_processes_resume_exactly(trainer, dataset, tiny, tmp_path):
    trainer.run("train", dataset, tmp_path / "run", tiny(), processes=2)
    random = load_file(tmp_path / "run/training_state/step-00000008/random.safetensors")
    assert set(random) == {"0/cpu", "1/cpu"}
    assert not torch.equal(random["0/cpu"], random["1/cpu"])
    # As if killed after update 8: the two repeat what follows, dropout included.
    shutil.copytree(tmp_path / "run", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed/training_state/step-00000012")
    trainer.run("train", dataset, tmp_path / "resumed", tiny(), resume=True, processes=2)
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "resumed"))
    assert all(torch.equal(a[name], b[name]) for name in a | b)


def test_the_state_of_a_sharded_model_is_whole_and_restores(trainer, tmp_path):
    trainer.run("restore_sharded", tmp_path / "state", processes=2)
