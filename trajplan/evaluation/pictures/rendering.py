"""Whether an environment can be filmed here, tried before anything runs, and what to do if it cannot."""

import contextlib
import gc
import os
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from ctypes.util import find_library
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from trajplan.errors import ConfigError
from trajplan.evaluation.environments import import_mujoco

# What MUJOCO_GL may be to draw without a display: the library that it needs, and the Debian packages that bring it.
OFFSCREEN = {
    "egl": ("EGL", "libegl1 libegl-mesa0 libgl1-mesa-dri"),
    "osmesa": ("OSMesa", "libosmesa6"),
}


def check_rendering(make_env: Callable[[], gymnasium.Env]) -> None:
    """Render one frame of an environment made with `render_mode="rgb_array"`, so that a failure comes early.

    Without a display and without a choice by the user MuJoCo is told to draw offscreen, by EGL or else OSMesa.
    """
    if sys.platform == "linux" and not any(os.environ.get(name) for name in ("MUJOCO_GL", "DISPLAY")):
        os.environ["MUJOCO_GL"] = "osmesa" if _has("osmesa") and not _has("egl") else "egl"
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None  # a half-made viewer complains when it is deleted
    try:
        frame, failure = _first_frame(make_env)
        gc.collect()
    finally:
        sys.unraisablehook = hook
    if failure is not None:
        raise ConfigError(f"--video cannot draw {failure}, or leave --video out.")
    if not isinstance(frame, np.ndarray) or frame.ndim != 3:
        raise ConfigError("--video needs an environment that renders to arrays; leave --video out.")


def render(env: gymnasium.Env) -> np.ndarray:
    """A frame, (height, width, 3) uint8.

    Gymnasium draws MuJoCo into whichever context is current; of several simulators that may be another's, or a closed
    one, and the frame black.
    """
    viewer = getattr(getattr(env.unwrapped, "mujoco_renderer", None), "viewer", None)
    if viewer is not None:
        viewer.make_context_current()
    return np.asarray(env.render())


def _first_frame(make_env: Callable[[], gymnasium.Env]) -> tuple[Any, str | None]:
    """A frame, or else what cannot be drawn and what to do."""
    # All of these are raised by one thing or another that is missing.
    errors: tuple[type[BaseException], ...] = (AttributeError, ImportError, OSError, RuntimeError, ValueError)
    errors += (gymnasium.error.Error,)
    if find_spec("mujoco") is not None:
        mujoco = import_mujoco()
        errors += (mujoco.FatalError, mujoco.UnexpectedError)
    env = make_env()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            env.reset(seed=0)
            return env.render(), None
    except errors as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        advice = _drawing_advice(reason) if _is_of_mujoco(error) else _package_advice(reason, error)
        return None, f"{_name(env)}: {advice}"
    finally:
        with contextlib.suppress(*errors):
            env.close()


def _name(env: gymnasium.Env) -> str:
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


def _is_of_mujoco(error: BaseException) -> bool:
    """Whether MuJoCo's renderer raised it, of whatever class it is."""
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return any("mujoco" in Path(name).parts or Path(name).stem == "mujoco_rendering" for name in files)


def _missing_module(error: BaseException) -> str | None:
    """The module whose want is behind an error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ModuleNotFoundError):
            return cause.name
        cause = cause.__cause__ or cause.__context__
    return None


def _package_advice(reason: str, error: BaseException) -> str:
    """What to do where a Python package draws the environment, or nothing does."""
    if _missing_module(error) == "pygame":
        return "it is drawn by pygame, which is not installed; pip install pygame-ce"
    if isinstance(error, gymnasium.error.DependencyNotInstalled):
        return reason.replace("`", "")
    return f"{reason}; give it an environment that renders"


def _drawing_advice(reason: str) -> str:
    """What to do where OpenGL fails: a way to draw that was tried and works here, else what is still to be installed.

    Whoever follows it comes to a new state each time, so that it cannot lead back.
    """
    chosen = os.environ.get("MUJOCO_GL", "")
    failed = f"MuJoCo cannot, with MUJOCO_GL={chosen or 'unset'} ({reason})"
    others = [name for name in OFFSCREEN if name != chosen]
    for name in others:
        if _works(name):
            return f"{failed}; set MUJOCO_GL={name}, which works here"
    for name in (*(name for name in OFFSCREEN if name == chosen), *others):
        if not _has(name):
            setting = "" if name == chosen else f" and set MUJOCO_GL={name}"
            library, packages = OFFSCREEN[name]
            return f"{failed}; install {library} (Debian, Ubuntu: apt-get install {packages}){setting}"
    return f"{failed}, though EGL and OSMesa are installed; film on another machine"


def _works(backend: str) -> bool:
    """Whether MuJoCo can draw so in a new process; in this one it has chosen already."""
    if not _has(backend):
        return False
    code = "import mujoco; mujoco.GLContext(8, 8).make_current()"
    environment = os.environ | {"MUJOCO_GL": backend}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True).returncode == 0


def _has(backend: str) -> bool:
    return find_library(OFFSCREEN[backend][0]) is not None
