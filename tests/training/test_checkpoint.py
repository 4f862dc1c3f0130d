import json
import shutil

import numpy as np
import pytest
import torch
from gymnasium import spaces
from safetensors.torch import load_file, save_file

from trajplan.data.info import DatasetInfo
from trajplan.errors import CheckpointError
from trajplan.models.trajectory_transformer import TrajectoryTransformer, TrajectoryTransformerConfig
from trajplan.tokenizers.fit import fit_tokenizer
from trajplan.training.checkpoint import load_model_folder, save_model_folder


@pytest.fixture(scope="module")
def parts(tiny):
    info = DatasetInfo(
        id="toy",
        observation_space=spaces.Box(-1, 1, (2,), np.float32),
        action_space=spaces.Discrete(3, start=1),
        num_transitions=50,
        num_episodes=5,
    )
    joined = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32)
    joined[:, 2] = np.arange(50) % 3
    tokenizer = fit_tokenizer("quantile", joined, 8, [None, None, 3, None, None])
    torch.manual_seed(0)
    shape = {"observation_dim": 2, "action_dim": 1, "bins": 8, "window": 4, "n_embd": 8, "n_head": 2, "n_layer": 1}
    model = TrajectoryTransformer(TrajectoryTransformerConfig(**shape, bin_counts=tokenizer.sizes.tolist()))
    return model, tokenizer, info, tiny(termination_penalty=None)


@pytest.fixture(scope="module")
def saved(parts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    save_model_folder(folder, *parts)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "model")
    return tmp_path / "model"


def test_round_trip(saved, parts):
    model, tokenizer, info, config = parts
    loaded = load_model_folder(saved)
    tokens = torch.randint(0, 3, (2, 20))
    assert torch.equal(loaded.model(tokens).logits, model.eval()(tokens).logits)
    assert torch.equal(loaded.tokenizer.edges, tokenizer.edges)
    assert loaded.info.to_dict() == info.to_dict()
    assert loaded.train_config == config
    assert (loaded.discount, loaded.termination_penalty) == (0.99, None)
    assert not loaded.model.training


def test_the_weights_are_readable_by_those_who_can_read_the_settings(saved):
    modes = {(saved / name).stat().st_mode for name in ("config.json", "model.safetensors", "training.json")}
    assert len(modes) == 1


def test_nothing_but_safetensors_and_json(saved):
    assert {path.suffix for path in saved.iterdir()} == {".json", ".safetensors"}


@pytest.mark.parametrize(
    "name",
    ["config.json", "model.safetensors", "tokenizer.json", "tokenizer.safetensors", "dataset.json"],
)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        load_model_folder(folder)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="nosuch"):
        load_model_folder(tmp_path / "nosuch")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "dataset.json", "training.json"])
def test_a_damaged_file_is_an_error(folder, name):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=str(folder)):
        load_model_folder(folder)


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_setting_of_another_version_is_named(folder):
    edit(folder / "training.json", beam_depth=3)
    with pytest.raises(CheckpointError, match="beam_depth"):
        load_model_folder(folder)


def test_another_type_of_model_is_refused(folder):
    edit(folder / "config.json", model_type="gpt2")
    with pytest.raises(CheckpointError, match="gpt2"):
        load_model_folder(folder)


def test_weights_of_another_shape_are_refused(folder):
    edit(folder / "config.json", n_embd=16)
    with pytest.raises(CheckpointError, match="does not fit its config") as caught:
        load_model_folder(folder)
    assert str(caught.value).count(" is (") == 1  # the first only


def test_a_weight_that_is_missing_is_named(folder):
    weights = load_file(folder / "model.safetensors")
    first, *_, last = weights
    for without, message in (({first, last}, f"it has no (?:{first}|{last})"), (set(weights), "it has no ")):
        save_file({k: v for k, v in weights.items() if k not in without}, folder / "model.safetensors")
        with pytest.raises(CheckpointError, match=rf"or is damaged: {message}[^ ]*\.$"):
            load_model_folder(folder)
    save_file(weights | {"odd": weights[first].clone()}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"damaged: it has a odd, which the model has not\.$"):
        load_model_folder(folder)


def test_another_datasets_tokenizer_is_refused(folder):
    fit_tokenizer("quantile", np.random.default_rng(1).normal(size=(50, 5)).astype(np.float32), 8).save(folder)
    with pytest.raises(CheckpointError, match="other bins"):
        load_model_folder(folder)


def test_another_dataset_is_refused(folder, parts):
    info = parts[2].to_dict()
    wider = DatasetInfo(
        id="toy", observation_space=spaces.Box(-1, 1, (3,), np.float32), action_space=parts[2].action_space
    )
    edit(folder / "dataset.json", **info | {"observation_space": wider.to_dict()["observation_space"]})
    with pytest.raises(CheckpointError, match=r"2 observation and 1 action dimensions, dataset\.json 3 and 1"):
        load_model_folder(folder)
