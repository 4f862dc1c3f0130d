"""Named settings: the paper's by environment and data kind, and others for what the paper has no row for.

Of the paper's (Janner, Li, Levine 2021), epochs, batch, warm-up, planner and the cut of the actions are those of the
released code: 50 passes over a million transitions, 80 on the medium-replay data of hopper and walker2d, and as many
windows on a smaller set. What differs on purpose is told in docs/training.md. The others are for small data and for a
CPU, for mazes and for a first try, and claim nothing of the paper.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

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


def _paper(name: str, epochs: float, transitions: int, planner: Any = None, batch_size: int = 256) -> Preset:
    passes, warmup = epochs * REFERENCE_TRANSITIONS / _checked(transitions), math.ceil(transitions / batch_size)
    train = TrainConfig(epochs=passes, batch_size=batch_size, warmup_updates=warmup)
    return Preset(name=name, train=train, planner=planner or _beam_search())


def _beam_search(**settings: Any) -> Any:
    return planner_named(DEFAULT).config_class()(**settings)


def _checked(transitions: int) -> int:
    if transitions < 1:
        raise ConfigError(f"transitions is {transitions}; a preset needs a dataset of at least 1.")
    return transitions


def _as_recorded(preset: Preset) -> Preset:
    return replace(preset, train=replace(preset.train, termination_penalty=None))


def tt_default(transitions: int = REFERENCE_TRANSITIONS) -> Preset:
    """The paper's default: horizon 15, beam 128, actions from the likeliest 40 %; 50 epochs per 1M transitions.

    The paper's penalty for a terminal is left out: in an environment that it does not have, an end may mean success.
    """
    return _as_recorded(_paper("tt_default", 50, transitions))


def tt_hopper_medium(transitions: int = REFERENCE_TRANSITIONS) -> Preset:
    """Hopper medium: the paper's default planner."""
    return _paper("tt_hopper_medium", 50, transitions)


def tt_hopper_medium_replay(transitions: int = REFERENCE_TRANSITIONS) -> Preset:
    """Hopper medium-replay: the default planner, 80 epochs per 1M transitions."""
    return _paper("tt_hopper_medium_replay", 80, transitions)


def tt_hopper_medium_expert(transitions: int = REFERENCE_TRANSITIONS) -> Preset:
    """Hopper medium-expert: the paper's default planner."""
    return _paper("tt_hopper_medium_expert", 50, transitions)


def tt_halfcheetah_medium(transitions: int = REFERENCE_TRANSITIONS) -> Preset:
    """HalfCheetah medium: horizon 5, beam 32."""
    return _paper("tt_halfcheetah_medium", 50, transitions, _beam_search(horizon=5, beam_width=32))


def tt_halfcheetah_medium_replay(transitions: int = REFERENCE_TRANSITIONS) -> Preset:
    """HalfCheetah medium-replay: horizon 5, beam 32."""
    return _paper("tt_halfcheetah_medium_replay", 50, transitions, _beam_search(horizon=5, beam_width=32))


def tt_halfcheetah_medium_expert(transitions: int = REFERENCE_TRANSITIONS) -> Preset:
    """HalfCheetah medium-expert: horizon 15, beam 32."""
    return _paper("tt_halfcheetah_medium_expert", 50, transitions, _beam_search(horizon=15, beam_width=32))


def tt_walker2d_medium(transitions: int = REFERENCE_TRANSITIONS) -> Preset:
    """Walker2d medium: the paper's default planner."""
    return _paper("tt_walker2d_medium", 50, transitions)


def tt_walker2d_medium_replay(transitions: int = REFERENCE_TRANSITIONS) -> Preset:
    """Walker2d medium-replay: horizon 20, beam 32, actions among the 40 likeliest; 80 epochs per 1M transitions."""
    planner = _beam_search(horizon=20, beam_width=32, action_top_k=40, action_cdf=None)
    return _paper("tt_walker2d_medium_replay", 80, transitions, planner)


def tt_walker2d_medium_expert(transitions: int = REFERENCE_TRANSITIONS) -> Preset:
    """Walker2d medium-expert: horizon 5, beam 128."""
    return _paper("tt_walker2d_medium_expert", 50, transitions, _beam_search(horizon=5, beam_width=128))


def tt_ant(transitions: int = REFERENCE_TRANSITIONS) -> Preset:
    """Ant, data of every kind: batch 128, horizon 5, beam 128; the 27 observations without contact forces."""
    return _paper("tt_ant", 50, transitions, _beam_search(horizon=5, beam_width=128), batch_size=128)


def tt_pointmaze(transitions: int = REFERENCE_TRANSITIONS) -> Preset:
    """Mazes, which the paper has no beam-search row for: reaching the goal may end an episode, so no penalty for it."""
    return _as_recorded(_paper("tt_pointmaze", 50, transitions, _beam_search(horizon=15, beam_width=64)))


def tt_small(transitions: int = REFERENCE_TRANSITIONS) -> Preset:
    """Fewer than 100,000 transitions, in minutes on a CPU: a small model, bins of equal width, 11 passes at most.

    Planned from the present alone (context 0): in data of mixed quality the past tells how bad the behaviour was, and a
    plan that reads it goes on as badly. The window is short for the same reason: of four transitions one is learned
    without a past. Actions weigh no more than the rest, or the loss to be best in would be that of their noise.
    """
    batch_size, passes, longest = 64, 11.0, 4000
    train = TrainConfig(
        n_layer=3, n_embd=64, embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0, tokenizer="uniform", bins=50, window=4,
        discount=0.98, termination_penalty=None, action_weight=1.0, batch_size=batch_size,
        epochs=min(passes, longest * batch_size / _checked(transitions)), learning_rate=3e-3, eval_every=100,
        eval_windows=512, patience=8, save_every=200,
    )  # fmt: skip
    planner = _beam_search(horizon=7, beam_width=16, context=0, discount=0.98)
    return Preset(name="tt_small", train=train, planner=planner)


def tt_small_locomotion(transitions: int = REFERENCE_TRANSITIONS) -> Preset:
    """`tt_small` with the paper's penalty for an end, as in its environments an end is a fall."""
    return _falling(tt_small(transitions))


def tt_cpu(transitions: int = REFERENCE_TRANSITIONS) -> Preset:
    """100,000 transitions and more without a GPU: the paper's model, 2,600 updates of 32 windows at a higher rate.

    Half an hour to an hour on one core for a body such as hopper's; a fraction of a pass, so that nothing overfits and
    dropout can be left out. Actions are drawn from the likeliest 0.6: a model that has seen so little does better with
    the wider cut than with the paper's (docs/planning.md has the numbers).
    """
    batch_size, updates = 32, 2600
    train = TrainConfig(
        embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0, termination_penalty=None, batch_size=batch_size,
        epochs=min(5.0, updates * batch_size / _checked(transitions)), learning_rate=2e-3, eval_every=250,
        eval_windows=512, patience=4, save_every=250,
    )  # fmt: skip
    planner = _beam_search(horizon=5, beam_width=32, context=0, action_cdf=0.6)
    return Preset(name="tt_cpu", train=train, planner=planner)


def tt_cpu_locomotion(transitions: int = REFERENCE_TRANSITIONS) -> Preset:
    """`tt_cpu` with the paper's penalty for an end and its context of 5 transitions."""
    preset = _falling(tt_cpu(transitions))
    return replace(preset, planner=replace(preset.planner, context=5))


def _falling(preset: Preset) -> Preset:
    train = replace(preset.train, termination_penalty=TrainConfig().termination_penalty)
    return Preset(name=f"{preset.name}_locomotion", train=train, planner=preset.planner)


def tt_quickstart(transitions: int = REFERENCE_TRANSITIONS) -> Preset:
    """A small model of a point maze in minutes on a CPU; the length does not follow the dataset.

    Planned from the present alone (context 0): what the last actions tell is how noisy the walker was, and a plan
    that reads it would act as noisily.
    """
    train = TrainConfig(
        n_layer=3, n_embd=64, embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0, tokenizer="uniform", bins=50, window=8,
        discount=0.98, termination_penalty=None, batch_size=64, updates=1200, learning_rate=3e-3, eval_every=100,
        eval_windows=512, save_every=200,
    )  # fmt: skip
    planner = _beam_search(horizon=7, beam_width=16, context=0, discount=0.98, action_cdf=0.4, replan_every=2)
    return Preset(name="tt_quickstart", train=train, planner=planner)


def tt_debug(transitions: int = REFERENCE_TRANSITIONS) -> Preset:
    """A tiny model and a short run that pass in seconds on a CPU; the length does not follow the dataset."""
    train = TrainConfig(
        n_layer=1, n_head=2, n_embd=32, bins=20, window=4, batch_size=32, updates=50, warmup_updates=5,
        eval_every=25, save_every=25, eval_windows=256, log_every=5,
    )  # fmt: skip
    return Preset(name="tt_debug", train=train, planner=_beam_search(horizon=2, beam_width=4, context=2))


PRESETS: dict[str, Callable[[int], Preset]] = {
    function.__name__: function
    for function in (
        *(tt_default, tt_hopper_medium, tt_hopper_medium_replay, tt_hopper_medium_expert),
        *(tt_halfcheetah_medium, tt_halfcheetah_medium_replay, tt_halfcheetah_medium_expert),
        *(tt_walker2d_medium, tt_walker2d_medium_replay, tt_walker2d_medium_expert),
        *(tt_ant, tt_pointmaze, tt_small, tt_small_locomotion, tt_cpu, tt_cpu_locomotion, tt_quickstart, tt_debug),
    )
}


def preset_named(name: str, transitions: int = REFERENCE_TRANSITIONS) -> Preset:
    """The preset of that name for a dataset of that size.

    Raises:
        ConfigError: if there is none of that name.
    """
    if name not in PRESETS:
        hint = did_you_mean(name, PRESETS) or f"there are auto, {', '.join(PRESETS)}."
        raise ConfigError(f"There is no preset {name!r}; {hint}")
    return PRESETS[name](transitions)


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
