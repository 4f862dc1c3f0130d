"""A dataset's environment: its Gymnasium specification as JSON, and making it without trusting the file."""

import contextlib
import io
import json
import traceback
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

from trajplan.errors import DataError

_WRAPPERS = ("gymnasium.wrappers.", "gymnasium.wrappers:", "trajplan.data.collection.repeat:")
_PACKAGES = ("gymnasium_robotics", "ogbench")
# Entry points as earlier versions recorded them.
_MOVED = {"trajplan.data.repeat:ActionRepeat": "trajplan.data.collection.repeat:ActionRepeat"}
# Written by Gymnasium before 1.0, unknown to it since.
_OLD_KEYS = ("apply_api_compatibility", "autoreset")


def spec_to_dict(spec: EnvSpec) -> dict[str, Any]:
    """An environment specification as a JSON-able dictionary; refuses one that holds Python objects."""
    try:
        return json.loads(spec.to_json())
    except (ValueError, TypeError) as error:
        raise DataError(
            f"Environment {spec.id!r} cannot be saved ({error}); register it with an entry point of the form "
            "'module:Class' and plain keyword arguments."
        ) from None


def spec_from_dict(values: Mapping[str, Any]) -> EnvSpec:
    """The inverse of `spec_to_dict`; only reads, imports nothing."""
    known = {key: value for key, value in values.items() if key not in _OLD_KEYS}
    try:
        known["additional_wrappers"] = [
            {**wrapper, "entry_point": _MOVED.get(wrapper["entry_point"], wrapper["entry_point"])}
            for wrapper in known.get("additional_wrappers", [])
        ]
        return EnvSpec.from_json(json.dumps(known))
    except (ValueError, TypeError, KeyError, gymnasium.error.Error) as error:
        raise DataError(f"The saved environment specification cannot be read: {error}") from None


def find_environment(env_id: str) -> EnvSpec:
    """The specification registered under an id such as `Hopper-v5`, or `module:Env-v0` after importing the module."""
    module, _, name = env_id.rpartition(":")
    try:
        if module:
            import_module(module)
        # Importing a package registers its environments; the first of these prints notes about some of them.
        for package in () if module else _PACKAGES:
            if name not in gymnasium.registry and find_spec(package) is not None:
                with contextlib.redirect_stderr(io.StringIO()):
                    import_module(package)
        return gymnasium.spec(name)
    except (gymnasium.error.Error, ImportError) as error:
        raise DataError(
            f"Environment {env_id!r} is not registered with Gymnasium here ({error}): install the package that has it "
            "(pip install 'trajplan[mujoco]' for MuJoCo and robotics environments, 'trajplan[ogbench]' for OGBench's) "
            "or name the module that registers it, as module:Env-v0."
        ) from None


def registered_spec(spec: EnvSpec) -> EnvSpec:
    """The specification to make an environment from: the one registered in this process, with `spec`'s settings.

    A dataset or checkpoint may come from anywhere, and the entry points that it names would be imported and called.
    So the code is taken from Gymnasium's own registry by the environment's id, and from the file only the keyword
    arguments, the time limit and wrappers of Gymnasium or of this package.
    """
    if ":" in spec.id:
        raise DataError(f"The saved environment id {spec.id!r} names a module; import it and use its plain id.")
    known = find_environment(spec.id)
    for wrapper in spec.additional_wrappers:
        if not wrapper.entry_point.startswith(_WRAPPERS):
            raise DataError(
                f"Environment {spec.id!r} was saved with the wrapper {wrapper.entry_point!r}, which is not one of "
                "Gymnasium's or trajplan's; wrap the environment yourself."
            )
    return replace(
        known,
        kwargs=dict(spec.kwargs),
        max_episode_steps=spec.max_episode_steps,
        additional_wrappers=spec.additional_wrappers,
    )


def make_environment(environment: EnvSpec | str, **kwargs: Any) -> gymnasium.Env:
    """A new environment, its code taken from this process's registry.

    Args:
        environment: a specification, or an id as for `find_environment`.
        kwargs: keyword arguments of `gymnasium.make`, such as `render_mode`.
    """
    spec = find_environment(environment) if isinstance(environment, str) else registered_spec(environment)
    try:
        return gymnasium.make(spec, **kwargs)
    except (gymnasium.error.Error, ImportError) as error:
        raise DataError(
            f"Environment {spec.id!r} cannot be made: {error} (pip install 'trajplan[mujoco]' brings MuJoCo and the "
            "robotics environments)."
        ) from None
    except TypeError as error:
        raise DataError(f"Environment {spec.id!r} does not take the options {spec.kwargs | kwargs}: {error}.") from None
    except AssertionError as error:
        # gymnasium-robotics' Fetch, HandReach and FrankaKitchen with MuJoCo 3.12 and later, for one.
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise DataError(
            f"Environment {spec.id!r} cannot be made: its own code refuses ({Path(frame.filename).name}, line "
            f"{frame.lineno}: {frame.line}); most often its package and the installed simulator do not fit each "
            "other (for gymnasium-robotics: pip install 'mujoco<3.12')."
        ) from None
