"""Named settings: the paper's by environment and data kind, and others for what the paper has no row for.

Of the paper's (Janner, Li, Levine 2021), epochs, batch, warm-up, planner and the cut of the actions are those of the
released code: 50 passes over a million transitions, 80 on the medium-replay data of hopper and walker2d, and as many
windows on a smaller set. What differs on purpose is told in docs/training.md. The others are for small data and for a
CPU, for mazes and for a first try, and claim nothing of the paper.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from trajplan.config import require
from trajplan.data.kinds import environment_name, locomotion_body, locomotion_data
from trajplan.errors import ConfigError, did_you_mean
from trajplan.planners.registry import DEFAULT, planner_named
from trajplan.training.config import TrainConfig

if TYPE_CHECKING:
    from trajplan.data.info import DatasetInfo

REFERENCE_TRANSITIONS = 1_000_000

# Fewer transitions than this overfit the paper's model long before the paper's length, on any device.
SMALL = 100_000

# Observations of the paper's ant; Ant-v5 adds 78 contact forces.
ANT_DIM = 27


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Settings of pretraining and of the planner that go together.

    Attributes:
        name: its key in `PRESETS`.
        why: how `preset_for` came to choose it.
        note: a sentence for the user about the dataset and these settings, or None.
    """

    name: str
    train: TrainConfig
    planner: Any
    why: str = field(default="", compare=False)
    note: str | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A preset as plain values; what it does not name has the default of `TrainConfig` or of the planner's settings.

    Attributes:
        summary: what it is for.
        epochs: per `REFERENCE_TRANSITIONS`, the first epoch over the dataset being the warm-up; None: otherwise.
        at_most: epochs and updates that a training takes at most; None where `epochs` or `train` says how long it is.
        train: settings of pretraining.
        planner: settings of the planner.
        type: the planner's name in the registry.
    """

    summary: str
    epochs: float | None = None
    at_most: tuple[float, int] | None = None
    train: Mapping[str, Any] = field(default_factory=dict)
    planner: Mapping[str, Any] = field(default_factory=dict)
    type: str = DEFAULT


# Where an end may mean success there is no penalty for it; in the paper's environments an end is a fall.
NO_PENALTY = {"termination_penalty": None}
NO_DROPOUT = {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0}

SHORT = {"horizon": 5, "beam_width": 32}

# The window is short because of four transitions one is learned without a past. Actions weigh no more than the rest, or
# the loss to be best in would be that of their noise.
SMALL_MODEL = {"n_layer": 3, "n_embd": 64, **NO_DROPOUT, "tokenizer": "uniform", "bins": 50, "discount": 0.98}
SMALL_TRAIN = {
    **SMALL_MODEL,
    **{"window": 4, "action_weight": 1.0, "batch_size": 64, "learning_rate": 3e-3},
    **{"eval_every": 100, "eval_windows": 512, "patience": 8, "save_every": 200},
}
# Planned from the present alone (context 0): in data of mixed quality the past tells how bad the behaviour was, and a
# plan that reads it goes on as badly.
SMALL_PLANNER = {"horizon": 7, "beam_width": 16, "context": 0, "discount": 0.98}

# Half an hour to an hour on one core for a body such as hopper's; a fraction of an epoch, so that nothing overfits and
# dropout can be left out.
CPU_TRAIN = {
    **NO_DROPOUT,
    **{"batch_size": 32, "learning_rate": 2e-3, "eval_every": 250, "eval_windows": 512, "patience": 4},
    "save_every": 250,
}
# Actions from the likeliest 0.6: a model that has seen so little does better with the wider cut than with the paper's
# (docs/planning.md has the numbers).
CPU_PLANNER = {**SHORT, "action_cdf": 0.6}

PRESETS = {
    "tt_default": Row(
        summary="the paper's planner and length, in an environment that the paper does not have",
        epochs=50,
        train=NO_PENALTY,
    ),
    "tt_hopper_medium": Row(summary="Hopper medium", epochs=50),
    "tt_hopper_medium_replay": Row(summary="Hopper medium-replay", epochs=80),
    "tt_hopper_medium_expert": Row(summary="Hopper medium-expert", epochs=50),
    "tt_halfcheetah_medium": Row(summary="HalfCheetah medium", epochs=50, planner=SHORT),
    "tt_halfcheetah_medium_replay": Row(summary="HalfCheetah medium-replay", epochs=50, planner=SHORT),
    "tt_halfcheetah_medium_expert": Row(
        summary="HalfCheetah medium-expert", epochs=50, planner={"horizon": 15, "beam_width": 32}
    ),
    "tt_walker2d_medium": Row(summary="Walker2d medium", epochs=50),
    "tt_walker2d_medium_replay": Row(
        summary="Walker2d medium-replay",
        epochs=80,
        planner={"horizon": 20, "beam_width": 32, "action_top_k": 40, "action_cdf": None},
    ),
    "tt_walker2d_medium_expert": Row(
        summary="Walker2d medium-expert", epochs=50, planner={"horizon": 5, "beam_width": 128}
    ),
    "tt_ant": Row(
        summary="Ant, data of every kind; the 27 observations without contact forces",
        epochs=50,
        train={"batch_size": 128},
        planner={"horizon": 5, "beam_width": 128},
    ),
    "tt_pointmaze": Row(
        summary="mazes, which the paper has no beam search for",
        epochs=50,
        train=NO_PENALTY,
        planner={"horizon": 15, "beam_width": 64},
    ),
    "tt_small": Row(
        summary="fewer than 100,000 transitions, in minutes on a CPU",
        at_most=(11.0, 4000),
        train={**SMALL_TRAIN, **NO_PENALTY},
        planner=SMALL_PLANNER,
    ),
    "tt_small_locomotion": Row(
        summary="tt_small with the paper's penalty for an end",
        at_most=(11.0, 4000),
        train=SMALL_TRAIN,
        planner=SMALL_PLANNER,
    ),
    "tt_cpu": Row(
        summary="100,000 transitions and more without a GPU: the paper's model, at a higher rate",
        at_most=(5.0, 2600),
        train={**CPU_TRAIN, **NO_PENALTY},
        planner={**CPU_PLANNER, "context": 0},
    ),
    "tt_cpu_locomotion": Row(
        summary="tt_cpu with the paper's penalty for an end and its context of 5 transitions",
        at_most=(5.0, 2600),
        train=CPU_TRAIN,
        planner={**CPU_PLANNER, "context": 5},
    ),
    # Context 0: what the last actions tell is how noisy the walker was, and a plan that reads it would act as noisily.
    "tt_quickstart": Row(
        summary="a point maze in minutes on a CPU, whatever the size of the dataset",
        train={
            **SMALL_MODEL,
            **NO_PENALTY,
            **{"window": 8, "batch_size": 64, "updates": 1200, "learning_rate": 3e-3},
            **{"eval_every": 100, "eval_windows": 512, "save_every": 200},
        },
        planner={**SMALL_PLANNER, "action_cdf": 0.4, "replan_every": 2},
    ),
    "tt_debug": Row(
        summary="a tiny model in seconds on a CPU, whatever the size of the dataset",
        train={
            **{"n_layer": 1, "n_head": 2, "n_embd": 32, "bins": 20, "window": 4, "batch_size": 32},
            **{"updates": 50, "warmup_updates": 5, "eval_every": 25, "save_every": 25, "eval_windows": 256},
            "log_every": 5,
        },
        planner={"horizon": 2, "beam_width": 4, "context": 2},
    ),
}


def preset_named(name: str, transitions: int = REFERENCE_TRANSITIONS) -> Preset:
    """The preset of that name for a dataset of that size."""
    if name not in PRESETS:
        hint = did_you_mean(name, PRESETS) or f"there are auto, {', '.join(PRESETS)}."
        raise ConfigError(f"Unknown preset {name!r}; {hint}")
    row = PRESETS[name]
    train = TrainConfig(**row.train)
    if row.epochs is not None or row.at_most is not None:
        require(transitions >= 1, "transitions", transitions, "be at least 1 for a preset")
    if row.epochs is not None:
        warmup = math.ceil(transitions / train.batch_size)
        train = replace(train, epochs=row.epochs * REFERENCE_TRANSITIONS / transitions, warmup_updates=warmup)
    if row.at_most is not None:
        epochs, updates = row.at_most
        train = replace(train, epochs=min(epochs, updates * train.batch_size / transitions))
    return Preset(name=name, train=train, planner=planner_named(row.type).config_class()(**row.planner))


def preset_for(info: "DatasetInfo", *, gpu: bool) -> Preset:
    """The preset for a dataset: by its size and the device, else by its environment and kind of data.

    Fewer than `SMALL` transitions take `tt_small`, more of them without a GPU `tt_cpu`; both keep the paper's penalty
    for an end in the environments that the paper has it for. On a GPU locomotion data take the paper's row, that of
    medium for a kind that the paper has no row for (expert, say), and an environment that the paper does not have
    `tt_default`.

    Args:
        info: of the dataset; its environment is the recorded one, else what the dataset's name says.
        gpu: whether training goes to an accelerator (`trajplan.training.loop.uses_gpu`).
    """
    environment, body, transitions = environment_name(info), locomotion_body(info), info.num_transitions
    ant = "maze" not in environment and (environment.rpartition("/")[2].startswith("ant") or "/ant" in environment)
    if transitions < SMALL or not gpu:
        chosen = "tt_small" if transitions < SMALL else "tt_cpu"
        chosen += "_locomotion" if body or ant else ""
        few = f"{transitions:,} transitions are few"
        why = few if transitions < SMALL else "there is no GPU here"
    else:
        why = "chosen by environment and kind of data"
        if "maze" in environment:
            chosen = "tt_pointmaze"
        elif body:
            chosen = f"tt_{body}_{locomotion_data(info).replace('-', '_')}"
        else:
            chosen = "tt_ant" if ant else "tt_default"
    note = _contact_forces(info) if ant else None
    return replace(preset_named(chosen, transitions), why=why, note=note)


def _contact_forces(info: "DatasetInfo") -> str | None:
    if info.observation_dim <= ANT_DIM:
        return None
    dims = info.observation_dim
    return (
        f"{info.id} has {dims} observation dimensions, the paper's ant {ANT_DIM}: the others are contact forces, and "
        f"make {dims + 10} tokens of a transition instead of {ANT_DIM + 10}; to leave them out, collect with "
        "--env-kwargs '{\"include_cfrc_ext_in_observation\": false}'."
    )
