"""Named settings: the paper's by environment and data kind, one for mazes and a tiny one for a first try.

The paper trains for 50 passes over a million transitions, 80 on medium-replay data, and for as many windows on a
smaller set: a preset takes the dataset's number of transitions and sets `epochs` so that the product is the same.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trajplan.data.kinds import environment_name, locomotion_body, locomotion_data
from trajplan.errors import ConfigError, did_you_mean
from trajplan.planners.config import BeamSearchConfig
from trajplan.training.config import TrainConfig

if TYPE_CHECKING:
    from trajplan.data.info import DatasetInfo

REFERENCE_TRANSITIONS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Settings of pretraining and of the planner that go together."""

    name: str
    train: TrainConfig
    planner: BeamSearchConfig


def _paper(name: str, epochs: float, transitions: int, planner: BeamSearchConfig | None = None) -> Preset:
    if transitions < 1:
        raise ConfigError(f"transitions is {transitions}; a preset needs a dataset of at least 1.")
    train = TrainConfig(epochs=epochs * REFERENCE_TRANSITIONS / transitions)
    return Preset(name=name, train=train, planner=planner or BeamSearchConfig())


def _as_recorded(preset: Preset) -> Preset:
    return replace(preset, train=replace(preset.train, termination_penalty=None))


def tt_default(transitions: int = REFERENCE_TRANSITIONS) -> Preset:
    """The paper's default: horizon 15, beam 128, actions from the likeliest 60 %; 50 epochs per 1M transitions.

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
    return _paper("tt_halfcheetah_medium", 50, transitions, BeamSearchConfig(horizon=5, beam_width=32))


def tt_halfcheetah_medium_replay(transitions: int = REFERENCE_TRANSITIONS) -> Preset:
    """HalfCheetah medium-replay: horizon 5, beam 32; 80 epochs per 1M transitions."""
    return _paper("tt_halfcheetah_medium_replay", 80, transitions, BeamSearchConfig(horizon=5, beam_width=32))


def tt_halfcheetah_medium_expert(transitions: int = REFERENCE_TRANSITIONS) -> Preset:
    """HalfCheetah medium-expert: horizon 15, beam 32."""
    return _paper("tt_halfcheetah_medium_expert", 50, transitions, BeamSearchConfig(horizon=15, beam_width=32))


def tt_walker2d_medium(transitions: int = REFERENCE_TRANSITIONS) -> Preset:
    """Walker2d medium: the paper's default planner."""
    return _paper("tt_walker2d_medium", 50, transitions)


def tt_walker2d_medium_replay(transitions: int = REFERENCE_TRANSITIONS) -> Preset:
    """Walker2d medium-replay: horizon 20, beam 32, actions among the 40 likeliest; 80 epochs per 1M transitions."""
    planner = BeamSearchConfig(horizon=20, beam_width=32, action_top_k=40, action_cdf=None)
    return _paper("tt_walker2d_medium_replay", 80, transitions, planner)


def tt_walker2d_medium_expert(transitions: int = REFERENCE_TRANSITIONS) -> Preset:
    """Walker2d medium-expert: horizon 5, beam 128."""
    return _paper("tt_walker2d_medium_expert", 50, transitions, BeamSearchConfig(horizon=5, beam_width=128))


def tt_ant(transitions: int = REFERENCE_TRANSITIONS) -> Preset:
    """Ant: horizon 5, beam 128."""
    return _paper("tt_ant", 50, transitions, BeamSearchConfig(horizon=5, beam_width=128))


def tt_ant_medium_replay(transitions: int = REFERENCE_TRANSITIONS) -> Preset:
    """Ant medium-replay: horizon 5, beam 128; 80 epochs per 1M transitions."""
    return _paper("tt_ant_medium_replay", 80, transitions, BeamSearchConfig(horizon=5, beam_width=128))


def tt_pointmaze(transitions: int = REFERENCE_TRANSITIONS) -> Preset:
    """Mazes, which the paper has no beam-search row for: reaching the goal may end an episode, so no penalty for it."""
    return _as_recorded(_paper("tt_pointmaze", 50, transitions, BeamSearchConfig(horizon=15, beam_width=64)))


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
    planner = BeamSearchConfig(horizon=7, beam_width=16, context=0, discount=0.98, action_cdf=0.4, replan_every=2)
    return Preset(name="tt_quickstart", train=train, planner=planner)


def tt_debug(transitions: int = REFERENCE_TRANSITIONS) -> Preset:
    """A tiny model and a short run that pass in seconds on a CPU; the length does not follow the dataset."""
    train = TrainConfig(
        n_layer=1, n_head=2, n_embd=32, bins=20, window=4, batch_size=32, updates=50, warmup_updates=5,
        eval_every=25, save_every=25, eval_windows=256, log_every=5,
    )  # fmt: skip
    return Preset(name="tt_debug", train=train, planner=BeamSearchConfig(horizon=2, beam_width=4, context=2))


PRESETS: dict[str, Callable[[int], Preset]] = {
    function.__name__: function
    for function in (
        *(tt_default, tt_hopper_medium, tt_hopper_medium_replay, tt_hopper_medium_expert),
        *(tt_halfcheetah_medium, tt_halfcheetah_medium_replay, tt_halfcheetah_medium_expert),
        *(tt_walker2d_medium, tt_walker2d_medium_replay, tt_walker2d_medium_expert),
        *(tt_ant, tt_ant_medium_replay, tt_pointmaze, tt_quickstart, tt_debug),
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


def preset_for(info: "DatasetInfo") -> Preset:
    """The preset for a dataset, by its environment and the kind of data that its name tells.

    The environment is the recorded one, else what the dataset's name says. Locomotion data of a kind that the paper
    has no row for (expert, say) takes the medium row; an environment that the paper does not have takes `tt_default`.
    """
    environment, kind = environment_name(info), locomotion_data(info).replace("-", "_")
    if "maze" in environment:
        chosen = "tt_pointmaze"
    elif body := locomotion_body(info):
        chosen = f"tt_{body}_{kind}"
    elif environment.rpartition("/")[2].startswith("ant") or "/ant" in environment:
        chosen = "tt_ant_medium_replay" if kind == "medium_replay" else "tt_ant"
    else:
        chosen = "tt_default"
    return preset_named(chosen, info.num_transitions)
