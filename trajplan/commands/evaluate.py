"""`trajplan evaluate`: run a checkpoint in its environment, and write down what came of it."""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trajplan.config import add_arguments as add_config_arguments
from trajplan.config import given
from trajplan.errors import ConfigError
from trajplan.files import read_json
from trajplan.parser import Parser
from trajplan.planners.registry import DEFAULT, PLANNERS, planner_named, type_of

# What `trajplan.evaluate` takes under the same names.
_OPTIONS = (
    *("episodes", "num_envs", "seed", "env", "max_episode_steps", "reference_min", "reference_max"),
    *("resume", "video", "video_episodes", "picture", "viewer", "device"),
)


def add_arguments(parser: Parser) -> None:
    """The command's options."""
    parser.add_argument(
        "checkpoint", metavar="DIR", help="checkpoint folder, or a model's name on the Hugging Face hub"
    )
    parser.add_argument("--episodes", type=int, default=10, help="episodes to run (default: 10)")
    parser.add_argument("--num-envs", type=int, default=10, help="environments planned for at once (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="episode n is seeded with this + n (default: 0)")
    parser.add_argument("--env", metavar="ID", help="Gymnasium environment (default: the dataset's)")
    parser.add_argument("--max-episode-steps", type=int, metavar="N", help="time limit (default: the environment's)")
    parser.add_argument("--reference-min", type=float, metavar="RETURN", help="the return that scores 0")
    parser.add_argument("--reference-max", type=float, metavar="RETURN", help="the return that scores 100")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where results go (default: the checkpoint folder)")
    parser.add_argument("--resume", action="store_true", help="keep the finished episodes of an interrupted run")
    parser.add_argument("--video", action="store_true", help="film the first episodes; point mazes need no OpenGL")
    parser.add_argument("--video-episodes", type=int, default=3, metavar="N", help="how many to film (default: 3)")
    parser.add_argument("--picture", action="store_true", help="draw plans of the first episode that is run: plan.png")
    parser.add_argument("--viewer", action="store_true", help="a page to step through its plans: viewer.html")
    _add_open_loop_arguments(parser)
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    summaries = "; ".join(f"{name}: {entry.summary}" for name, entry in PLANNERS.items())
    parser.add_argument("--planner", metavar="NAME", help=f"what plans (default: the checkpoint's). {summaries}")
    parser.epilog = "trajplan evaluate --planner NAME --help lists a planner's settings, which are options, too."
    parser.complete = _add_planner_settings


def _add_planner_settings(parser: Parser, words: list[str]) -> None:
    """Add the settings of the planner that acts: only its file is imported."""
    name = _planner_in(words)
    if name is None and not {"--help", "-h"} & set(words):
        name = _planner_of_checkpoint(words)
    if name is not None:
        title = f"settings of {name} instead of the checkpoint's own"
        add_config_arguments(parser, planner_named(name).config_class(), title)
        parser.set_defaults(settings_of=name)


def _add_open_loop_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("open loop: held-out episodes of the dataset instead of the environment")
    group.add_argument(
        "--open-loop", action="store_true", help="predict them by their actions alone: open_loop.json, open_loop.png"
    )
    group.add_argument("--open-loop-steps", type=int, metavar="N", help="how far ahead (default: 100)")
    group.add_argument("--open-loop-starts", type=int, metavar="N", help="from how many places (default: 256)")
    group.add_argument(
        "--dynamics", type=Path, metavar="DIR", help="a MOPO, MBPO or COMBO run whose ensemble predicts the same"
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate; returns 0, or 130 when interrupted."""
    open_loop = {name: getattr(args, name) for name in ("open_loop_steps", "open_loop_starts", "dynamics")}
    open_loop = {name: value for name, value in open_loop.items() if value is not None}
    if args.open_loop:
        return _run_open_loop(args, open_loop)
    if open_loop:
        raise ConfigError(f"{_flags(open_loop)} goes with --open-loop: give that too.")
    from trajplan.evaluating import EvaluationInterrupted, evaluate
    from trajplan.hub import checkpoint_folder

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
    import inspect

    from trajplan.evaluating import evaluate
    from trajplan.evaluation.open_loop import NUMBERS, PICTURE, evaluate_open_loop
    from trajplan.hub import checkpoint_folder, is_baseline

    defaults = inspect.signature(evaluate).parameters
    unfit = [name for name in _OPTIONS if getattr(args, name) != defaults[name].default]
    unfit = [*(name for name in unfit if name not in ("seed", "device")), *(["planner"] if args.planner else [])]
    unfit += given(args, planner_named(args.settings_of).config_class())
    if unfit:
        raise ConfigError(f"--open-loop runs no episodes and no planner: leave out {_flags(unfit)}.")
    folder, output = checkpoint_folder(args.checkpoint), _output_folder(args)
    if is_baseline(folder):
        raise ConfigError(f"{args.checkpoint} is a baseline: --open-loop measures a transformer (and --dynamics DIR).")
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
    from trajplan.hub import is_baseline
    from trajplan.planners.settings import planner_config, saved_planner

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


def _planner_in(words: list[str]) -> str | None:
    """The planner that a command line names."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word.startswith("--planner="):
            return word.partition("=")[2]
        if word == "--planner":
            return following
    return None


def _planner_of_checkpoint(words: list[str]) -> str:
    """The planner of the checkpoint folder among the words of a command line; on the hub it is not known yet."""
    for before, word in zip(["", *words], words, strict=False):
        path = Path(word).expanduser() / "planner.json"
        if before != "--output" and not word.startswith("-") and path.is_file():
            return str(read_json(path).get("type", DEFAULT))
    return DEFAULT
