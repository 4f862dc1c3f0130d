"""`trajplan evaluate`: run a checkpoint in its environment, and write down what came of it."""

import argparse
import inspect
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trajplan.config import given
from trajplan.errors import ConfigError
from trajplan.evaluating import EvaluationInterrupted, evaluate
from trajplan.evaluation.open_loop import NUMBERS, PICTURE, evaluate_open_loop
from trajplan.hub import checkpoint_folder, is_baseline, is_dynamics
from trajplan.planners.registry import planner_named, type_of
from trajplan.planners.settings import planner_config, saved_planner

# What `trajplan.evaluate` takes under the same names.
_OPTIONS = (
    *("episodes", "num_envs", "seed", "tasks", "env", "max_episode_steps", "reference_min", "reference_max"),
    *("resume", "video", "video_episodes", "picture", "viewer", "device", "keep_planner"),
)


def run(args: argparse.Namespace) -> int:
    """Evaluate; returns 0, or 130 when interrupted."""
    open_loop = {name: getattr(args, name) for name in ("open_loop_steps", "open_loop_starts", "dynamics")}
    open_loop = {name: value for name, value in open_loop.items() if value is not None}
    if args.open_loop:
        return _run_open_loop(args, open_loop)
    if open_loop:
        raise ConfigError(f"{_flags(open_loop)} goes with --open-loop: give that too.")
    folder = checkpoint_folder(args.checkpoint)
    planner = _planner(args, folder)
    options = {name: getattr(args, name) for name in _OPTIONS}
    try:
        evaluation = evaluate(folder, **options | {"output": _output_folder(args), "planner": planner})
    except EvaluationInterrupted as interrupt:
        message = f"trajplan: interrupted; {interrupt}: the same command with --resume continues."
        print(message, file=sys.stderr)
        return 130
    print(evaluation)
    print(f"written           {evaluation.path}")
    if args.video:
        videos = ", ".join(map(str, evaluation.videos))
        print(f"videos            {videos or 'none: those episodes were finished before'}")
    if evaluation.picture is not None:
        print(f"picture           {evaluation.picture}")
    if evaluation.viewer is not None:
        print(f"viewer            {evaluation.viewer}")
    return 0


def _flags(names: Iterable[str]) -> str:
    return ", ".join("--" + name.replace("_", "-") for name in names)


def _run_open_loop(args: argparse.Namespace, settings: dict[str, Any]) -> int:
    defaults = inspect.signature(evaluate).parameters
    unfit = [name for name in _OPTIONS if getattr(args, name) != defaults[name].default]
    unfit = [*(name for name in unfit if name not in ("seed", "device")), *(["planner"] if args.planner else [])]
    planner = given(args, planner_named(args.settings_of).config_class())
    # The ensemble that a planner may have is measured likewise.
    settings = {"dynamics": planner.pop("ensemble")} | settings if "ensemble" in planner else settings
    unfit += planner
    if unfit:
        raise ConfigError(f"--open-loop runs no episodes and no planner: leave out {_flags(unfit)}.")
    folder, output = checkpoint_folder(args.checkpoint), _output_folder(args)
    if is_baseline(folder) or is_dynamics(folder):
        kind = "baseline" if is_baseline(folder) else "dynamics ensemble"
        raise ConfigError(f"{args.checkpoint} is a {kind}: --open-loop measures a transformer (and --dynamics DIR).")
    settings = {name.removeprefix("open_loop_"): value for name, value in settings.items()}
    report = evaluate_open_loop(folder, output, seed=args.seed, device=args.device, **settings)
    ahead = sorted({1, min(10, report["horizon"]), report["horizon"]})
    print(f"{'error, in std':<18}" + "".join(f"{f'{step} ahead':>12}" for step in ahead))
    for name, found in report["errors"].items():
        values = [found["rms"][step - 1] for step in ahead]
        print(f"{name:<18}" + "".join(f"{'infinite' if value is None else f'{value:.3f}':>12}" for value in values))
    print(f"written           {output / NUMBERS}, {output / PICTURE}")
    return 0


def _output_folder(args: argparse.Namespace) -> Path:
    output = args.output or Path(args.checkpoint).expanduser()
    if args.output is None and not output.is_dir():
        raise ConfigError(f"{args.checkpoint} is not a folder here; for a model from the hub give --output DIR.")
    return output


def _planner(args: argparse.Namespace, folder: Path) -> Any:
    """The planner's settings, or None for a baseline, which takes none."""
    settings = given(args, planner_named(args.settings_of).config_class())
    if is_baseline(folder):
        flags = [*(["planner"] if args.planner else []), *settings]
        flags += [name for name in ("picture", "viewer") if getattr(args, name)]
        if flags:
            raise ConfigError(f"{args.checkpoint} is a baseline, which does not plan: leave out {_flags(flags)}.")
        return None
    saved = saved_planner(folder)
    if settings and args.settings_of != (args.planner or type_of(saved)):
        raise ConfigError(f"{args.checkpoint} plans by {type_of(saved)}: name the planner with --planner NAME.")
    return planner_config(args.planner, saved, settings)
