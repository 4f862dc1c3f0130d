"""Settings of a comparison: which methods under which labels, `--set LABEL.NAME=VALUE`, and how all are evaluated."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trajplan.baselines.dynamics.settings import DynamicsConfig
from trajplan.baselines.engine.settings import RunConfig
from trajplan.baselines.registry import METHODS, method_named
from trajplan.config import V, option, parse_value, renamed, require, to_dict
from trajplan.errors import ConfigError, did_you_mean
from trajplan.planners.registry import DEFAULT, planner_named, planners
from trajplan.training.config import TrainConfig

# The names among the methods of what is planned on, a planner's among its settings, and all baselines' in --set.
TRANSFORMER = "tt"
DYNAMICS = "dynamics"
PLANNED_BY = {TRANSFORMER: DEFAULT, DYNAMICS: "cem"}
PLANNER = "planner"
BASELINES = "baselines"

Settings = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How every cell is evaluated: the same episodes for all."""

    episodes: int = option(
        10,
        "episodes (of each task, where there are several) that every trained model is evaluated in, the same for all",
    )
    episode_seed: int = option(0, "episode n is seeded with this + n")
    num_envs: int = option(10, "environments acted in at once; changes the speed only")
    env: str | None = option(None, "Gymnasium environment (none: the dataset's)")
    max_episode_steps: int | None = option(None, "time limit (none: the environment's)")
    reference_min: float | None = option(None, "the return that scores 0 (none: the dataset's)")
    reference_max: float | None = option(None, "the return that scores 100 (none: the dataset's)")

    def __post_init__(self) -> None:
        for name in ("episodes", "num_envs"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "be at least 1")
        require(self.episode_seed >= 0, "episode_seed", self.episode_seed, "be 0 or more")
        steps = self.max_episode_steps
        require(steps is None or steps >= 1, "max_episode_steps", steps, "be at least 1, or none")


def parse_methods(text: str) -> dict[str, str]:
    """Methods by label, from `bc,bc10=bc,tt`: a method under its own name, or a second time under another."""
    methods: dict[str, str] = {}
    known = (*METHODS, *PLANNED_BY)
    for word in text.split(","):
        label, _, method = word.strip().partition("=")
        method = method or label
        if not re.fullmatch(r"[A-Za-z0-9][\w-]*", label) or label == BASELINES:
            raise ConfigError(f"{label!r} cannot name a method in the table; use letters, digits, - and _.")
        if label in methods:
            raise ConfigError(f"--methods names {label} twice; give the second one a label, as {label}2={method}.")
        if method not in known:
            hint = did_you_mean(method, known) or f"there are {', '.join(known)}."
            raise ConfigError(f"Unknown method {method!r}; {hint}")
        if label != method and label in known:
            raise ConfigError(
                f"{label!r} is another method's name; give {method} another label, as {method}2={method}."
            )
        methods[label] = method
    return methods


def parse_settings(words: Sequence[str], methods: Mapping[str, str]) -> dict[str, Settings]:
    """Settings by label, from words such as `iql.updates=5000` or, for all baselines, `baselines.updates=5000`."""
    found: dict[str, dict[str, tuple[str, str]]] = {label: {} for label in methods}
    # What is said of all baselines comes first, so that what is said of one wins.
    for word in sorted(words, key=lambda word: not word.startswith(BASELINES + ".")):
        target, equals, text = word.partition("=")
        label, dot, name = target.partition(".")
        if not (equals and dot and name):
            raise ConfigError(f"--set takes METHOD.NAME=VALUE, such as iql.updates=5000, not {word!r}.")
        if label == BASELINES:
            labels = [label for label, method in methods.items() if method not in PLANNED_BY]
            if not labels:
                raise ConfigError(f"--set {word}: no baseline is compared, only {', '.join(methods)}; leave it out.")
        elif label in methods:
            labels = [label]
        else:
            raise ConfigError(f"--set {word}: {label!r} is none of the methods compared, {', '.join(methods)}.")
        for each in labels:
            found[each][name.replace("-", "_")] = (word, text)
    settings: dict[str, Settings] = {}
    for label, method in methods.items():
        _, planner = found[label].get(PLANNER, ("", PLANNED_BY.get(method, "")))
        settings[label] = {
            name: _typed(word, method, planner, name, text)
            for name, (word, text) in todays_names(method, found[label]).items()
        }
    return settings


def todays_names(method: str, settings: Mapping[str, V]) -> dict[str, V]:
    """Settings of a method's training, under the names that they have now."""
    return renamed(settings, *_training_classes(method))


def changed_flags(config: EvaluationConfig) -> list[str]:
    """What differs from the defaults, as the words of a command line that gives it."""
    default = to_dict(EvaluationConfig())
    changed = {name: value for name, value in to_dict(config).items() if value != default[name]}
    return [f"--{name.replace('_', '-')}={value}" for name, value in changed.items()]


def set_words(label: str, settings: Mapping[str, Any]) -> list[str]:
    """The inverse of `parse_settings` for one label."""
    return [f"{label}.{name}={'none' if value is None else value}" for name, value in settings.items()]


def split_planner(settings: Mapping[str, Any]) -> tuple[Settings, str | None, Settings]:
    """Settings of the training, the planner's name where one is given, and its settings under their plain names."""
    inside = PLANNER + "."
    planner = {name.removeprefix(inside): value for name, value in settings.items() if name.startswith(inside)}
    training = {name: value for name, value in settings.items() if name != PLANNER and not name.startswith(inside)}
    return training, settings.get(PLANNER), planner


def _typed(word: str, method: str, planner: str, name: str, text: str) -> Any:
    """The value of a setting, of the type that its config says."""
    plain = name
    classes = _training_classes(method)
    if method == TRANSFORMER and name == "preset":
        return text
    if method in PLANNED_BY and name == PLANNER:
        _check_planner(word, method, text)
        return text
    if method in PLANNED_BY and name.startswith(PLANNER + "."):
        classes, plain = [planner_named(planner).config_class()], name.removeprefix(PLANNER + ".")
    if plain == "seed":
        raise ConfigError(f"--set {word}: seeds are set for all methods alike, by --seeds.")
    known = [field.name for config_class in classes for field in dataclasses.fields(config_class)]
    for config_class in classes:
        if plain in (field.name for field in dataclasses.fields(config_class)):
            try:
                return parse_value(config_class, plain, text)
            except ConfigError as error:
                raise ConfigError(f"--set {word}: {error}") from None
    hint = did_you_mean(plain, known) or f"it has {', '.join(known)}."
    raise ConfigError(f"--set {word}: {method} has no setting {name!r}; {hint}")


def _training_classes(method: str) -> list[type]:
    """Of a method's settings."""
    planned: dict[str, list[type]] = {TRANSFORMER: [TrainConfig], DYNAMICS: [DynamicsConfig]}
    return planned[method] if method in planned else [method_named(method).config_class(), RunConfig]


def _check_planner(word: str, method: str, name: str) -> None:
    """Refuse a planner that plans on something else."""
    on = planner_named(PLANNED_BY[method]).on
    if planner_named(name).on != on:
        others = ", ".join(other for other, entry in planners().items() if entry.on == on)
        raise ConfigError(f"--set {word}: {name} does not plan on {method}; there are {others}.")
