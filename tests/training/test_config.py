import dataclasses

import pytest

from trajplan.config import from_dict, to_dict
from trajplan.errors import ConfigError
from trajplan.training.config import TrainConfig, differences


def test_defaults_are_the_papers():
    config = TrainConfig()
    assert (config.n_layer, config.n_head, config.n_embd, config.bins, config.window) == (4, 4, 128, 100, 10)
    assert (config.embd_pdrop, config.attn_pdrop, config.resid_pdrop) == (0.1, 0.1, 0.1)
    weights = (config.observation_weight, config.action_weight, config.reward_weight, config.return_weight)
    assert weights == (1, 5, 1, 1)
    assert (config.learning_rate, config.beta1, config.beta2, config.weight_decay) == (6e-4, 0.9, 0.95, 0.1)
    assert (config.batch_size, config.grad_clip, config.final_learning_rate) == (256, 1.0, 0.1)
    assert (config.discount, config.termination_penalty, config.tokenizer) == (0.99, -100.0, "quantile")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_layer", 0),
        ("n_embd", 130),
        ("bins", 1),
        ("window", 1),
        ("attn_pdrop", 1.0),
        ("discount", 0.0),
        ("discount", 1.5),
        ("termination_penalty", float("nan")),
        ("action_weight", -1.0),
        ("batch_size", 0),
        ("accumulation", 0),
        ("epochs", 0.0),
        ("epochs", float("inf")),
        ("updates", 0),
        ("learning_rate", 0.0),
        ("warmup_updates", -1),
        ("final_learning_rate", 2.0),
        ("weight_decay", -0.1),
        ("grad_clip", 0.0),
        ("beta2", 1.0),
        ("held_out", 1.0),
        ("eval_every", 0),
        ("save_every", 0),
        ("seed", -1),
        ("trackers", "tensorboard,nosuch"),
    ],
)
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(ConfigError, match=name):
        TrainConfig(**{name: value})


def test_length_is_passes_over_the_windows_unless_updates_are_given():
    resolved = TrainConfig(epochs=3, batch_size=10).resolved(windows=101, bf16=False, cpu=False)
    assert resolved.updates == 31  # 303 windows in batches of 10
    assert TrainConfig(updates=7).resolved(windows=101, bf16=False, cpu=False).updates == 7


@pytest.mark.parametrize(
    ("asked", "bf16", "expected"),
    [("auto", True, "bf16"), ("auto", False, "no"), ("no", True, "no"), ("bf16", False, "bf16")],
)
def test_precision_is_settled_by_the_device(asked, bf16, expected):
    assert TrainConfig(precision=asked).resolved(windows=1, bf16=bf16, cpu=False).precision == expected


@pytest.mark.parametrize(
    ("settings", "cpu", "expected"),
    [
        ({"precision": "bf16", "attn_pdrop": 0.0}, True, "causal_blocks"),
        ({"precision": "no", "attn_pdrop": 0.1}, True, "causal_blocks"),
        ({"precision": "no", "attn_pdrop": 0.0}, True, "sdpa"),
        ({"precision": "bf16", "attn_pdrop": 0.1}, False, "sdpa"),
        ({"precision": "bf16", "attention": "eager"}, True, "eager"),
    ],
)
def test_attention_is_settled_by_what_is_quick(settings, cpu, expected):
    assert TrainConfig(**settings).resolved(windows=1, bf16=True, cpu=cpu).attention == expected


def test_differences_name_each_changed_setting_but_not_the_free_ones():
    before = TrainConfig()
    after = dataclasses.replace(before, seed=3, n_layer=2, save_every=7, trackers="wandb")
    assert differences(after, before) == ["n_layer is 2 and was 4", "seed is 3 and was 0"]


def test_every_setting_is_documented_and_survives_json():
    assert all(field.metadata["help"] for field in dataclasses.fields(TrainConfig))
    config = TrainConfig(termination_penalty=None, updates=5)
    assert from_dict(TrainConfig, to_dict(config)) == config
