"""Environments to evaluate in: made from the dataset's description or by name, checked, and kept quiet."""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from trajplan.data.environment import make_environment
from trajplan.data.info import DatasetInfo
from trajplan.data.scores import GIVEN, ReferenceScores, reference_for_environment
from trajplan.errors import ConfigError

MakeEnvironment = Callable[[], gymnasium.Env]


def environment_maker(
    info: DatasetInfo,
    env_id: str | None = None,
    *,
    max_episode_steps: int | None = None,
    render_mode: str | None = None,
) -> MakeEnvironment:
    """A function that makes one environment: the dataset's own, or the one named `env_id`.

    Args:
        info: the dataset's description.
        env_id: a registered Gymnasium id, instead of the dataset's environment.
        max_episode_steps: a time limit instead of the environment's own.
        render_mode: passed on to Gymnasium.
    """
    options: dict[str, Any] = {"disable_env_checker": True, "render_mode": render_mode}
    if max_episode_steps is not None:
        options["max_episode_steps"] = max_episode_steps

    def make() -> gymnasium.Env:
        made = info.make_env(**options) if env_id is None else make_environment(env_id, **options)
        return OwnGenerator(made) if hasattr(made.unwrapped, "num_tasks") else made

    return make


class OwnGenerator(gymnasium.Wrapper):
    """An OGBench environment, which draws from numpy's global generator, with a generator of its own in that place.

    Episodes then depend on the seed that `reset` is given alone, not on what else this process draws or which other
    environments it steps.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self._generator = np.random.MT19937()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset everything that the environment draws from."""
        if seed is not None:
            self._generator = np.random.MT19937(seed)
            # It takes random actions before it places what it moves.
            self.env.action_space.seed(seed % 2**32)
        with self._in_place():
            return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the environment's."""
        with self._in_place():
            return self.env.step(action)

    @contextlib.contextmanager
    def _in_place(self) -> Iterator[None]:
        before = np.random.get_bit_generator()  # type: ignore[attr-defined]
        np.random.set_bit_generator(self._generator)  # type: ignore[attr-defined]
        try:
            yield
        finally:
            np.random.set_bit_generator(before)  # type: ignore[attr-defined]


def tasks_of(env: gymnasium.Env, chosen: Sequence[int] | None = None) -> list[int] | None:
    """The tasks that episodes are spread over, all of the environment or the chosen ones; None where it has none.

    Args:
        env: one of OGBench's, whose `reset` takes `options={"task_id": k}` with k from 1 on, or any other.
        chosen: numbers of some tasks.
    """
    plain: Any = env.unwrapped
    count = getattr(plain, "num_tasks", 0) if getattr(plain, "_reward_task_id", None) is None else 0
    if chosen is None:
        return list(range(1, count + 1)) or None
    if not count:
        raise ConfigError(f"environment {_title(env)} has no tasks to choose from: leave --tasks out.")
    unknown = [task for task in chosen if not 1 <= task <= count]
    if unknown or not chosen or len(set(chosen)) < len(chosen):
        raise ConfigError(
            f"environment {_title(env)} has the tasks 1 to {count}: name some of them once each, not "
            f"{' '.join(map(str, chosen)) or 'none'}."
        )
    return list(chosen)


def _title(env: gymnasium.Env) -> str:
    return env.spec.id if env.spec else type(env.unwrapped).__name__


def check_environment(env: gymnasium.Env, info: DatasetInfo) -> None:
    """Compare an environment's spaces with those of the dataset that the policy was trained on."""
    observed = env.observation_space
    if info.goal_columns is not None and isinstance(observed, spaces.Dict):
        # What is to be reached is told to the policy at reset, not in every observation.
        known = getattr(info.observation_space, "spaces", {})
        parts = {key: part for key, part in observed.spaces.items() if key in known or key != "desired_goal"}
        observed = spaces.Dict(parts)
    differs = _difference(observed, info.observation_space, "observations", bounds=False)
    differs = differs or _difference(env.action_space, info.action_space, "actions", bounds=True)
    if differs:
        raise ConfigError(
            f"environment {_title(env)} does not fit dataset {info.id}, which the policy learns from: {differs}; name "
            "the right environment by --env, or correct the one that the dataset names."
        )


def check_time_limit(env: gymnasium.Env) -> None:
    """Refuse an environment whose episodes might never end."""
    if env.spec is not None and env.spec.max_episode_steps is None:
        raise ConfigError(f"environment {env.spec.id} has no time limit; give one by --max-episode-steps.")


def try_environment(make_env: MakeEnvironment, info: DatasetInfo) -> list[int] | None:
    """Make one environment, check that a policy trained on the dataset can be evaluated in it; gives its tasks."""
    with quiet_simulators(), contextlib.closing(make_env()) as env:
        check_environment(env, info)
        check_time_limit(env)
        return tasks_of(env)


def reference_scores(
    info: DatasetInfo, env_id: str | None = None, minimum: float | None = None, maximum: float | None = None
) -> ReferenceScores | None:
    """The returns that mean 0 and 100: the given ones, else the dataset's, else the bundled table's, else None.

    The dataset's own are left aside when another environment is evaluated in.
    """
    if (minimum is None) != (maximum is None):
        raise ConfigError("give both --reference-min and --reference-max, or neither.")
    if minimum is not None and maximum is not None:
        return ReferenceScores(minimum, maximum, GIVEN)
    own = info.env_spec.id if info.env_spec is not None else None
    if info.reference is not None and env_id in (None, own):
        return info.reference
    name = env_id or own
    return reference_for_environment(name) if name else None


def import_mujoco() -> ModuleType:
    """The module `mujoco`."""
    try:
        return import_module("mujoco")
    except (AttributeError, ImportError, OSError, RuntimeError) as error:
        chosen = os.environ.get("MUJOCO_GL")
        reason = " ".join(str(error).split()).rstrip(".")
        if chosen is None:
            raise ConfigError(f"MuJoCo cannot be imported ({reason}); pip install 'trajplan[mujoco]' anew.") from None
        raise ConfigError(
            f"MuJoCo cannot be imported with MUJOCO_GL={chosen} ({reason}); unset MUJOCO_GL: what draws is then chosen "
            "by what is installed."
        ) from None


@contextlib.contextmanager
def quiet_simulators() -> Iterator[dict[str, int]]:
    """Collect the warnings of Gymnasium and MuJoCo instead of printing them; yields counts by first sentence.

    MuJoCo writes its warnings to the terminal and a file in the working directory for every episode of an unstable
    simulation; here they are counted, and the caller reports each once.
    """
    counts: dict[str, int] = {}

    def count(message: str) -> None:
        if "deprecated" in message:  # the environment's authors' business
            return
        name = message.split(". ")[0].strip()
        counts[name] = counts.get(name, 0) + 1

    level = gymnasium.logger.min_level
    gymnasium.logger.min_level = gymnasium.logger.ERROR
    with contextlib.ExitStack() as stack:
        stack.callback(setattr, gymnasium.logger, "min_level", level)
        if find_spec("mujoco") is not None:
            mujoco = import_mujoco()
            stack.callback(mujoco.set_mju_user_warning, mujoco.get_mju_user_warning())
            mujoco.set_mju_user_warning(count)
        if find_spec("gymnasium_robotics") is not None:
            with contextlib.redirect_stderr(io.StringIO()):
                import_module("gymnasium_robotics")  # prints a notice about other environments
        yield counts


def print_warnings(counts: Mapping[str, int]) -> None:
    """What `quiet_simulators` counted, a line each, on standard error."""
    for warning, count in counts.items():
        print(f"warning, {count} times: {warning}", file=sys.stderr)


def _difference(ours: spaces.Space, trained: spaces.Space, what: str, *, bounds: bool) -> str | None:
    if isinstance(trained, spaces.Dict):
        if not isinstance(ours, spaces.Dict) or set(ours.spaces) != set(trained.spaces):
            return f"its {what} are {_name(ours)}, not {_name(trained)}"
        for key, inner in trained.spaces.items():
            if found := _difference(ours.spaces[key], inner, f"{what}[{key!r}]", bounds=bounds):
                return found
        return None
    if _name(ours) != _name(trained):
        return f"its {what} are {_name(ours)}, not {_name(trained)}"
    if bounds and isinstance(ours, spaces.Box) and isinstance(trained, spaces.Box):
        for side in ("low", "high"):
            mine, theirs = getattr(ours, side), getattr(trained, side)
            if np.isfinite(theirs).all() and not np.allclose(mine, theirs):
                return f"its {what} have the {side} bounds {mine.tolist()}, not {theirs.tolist()}"
    return None


def _name(space: spaces.Space) -> str:
    if isinstance(space, spaces.Dict):
        return f"Dict({', '.join(sorted(space.spaces))})"
    if isinstance(space, spaces.Discrete):
        return f"Discrete({space.n}, start={space.start})"
    return f"{type(space).__name__}{space.shape}"
