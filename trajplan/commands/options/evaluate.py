"""The options of `trajplan evaluate`, and of each planner."""

import argparse
from pathlib import Path

from trajplan.config import add_arguments as add_config_arguments
from trajplan.parser import Parser
from trajplan.planners.registry import DEFAULT, PLANNERS, planner_named
from trajplan.planners.settings import PLANNER_FILE, saved_type


def add_arguments(parser: Parser) -> None:
    """The command's options."""
    parser.add_argument(
        "checkpoint", metavar="DIR", help="checkpoint folder, or a model's name on the Hugging Face hub"
    )
    parser.add_argument(
        "--episodes", type=int, default=10, help="episodes to run, of each task where there are several (default: 10)"
    )
    parser.add_argument(
        "--tasks", type=int, nargs="+", metavar="K", help="tasks of an OGBench environment to run (default: all)"
    )
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
    parser.add_argument(
        "--keep-planner",
        action="store_true",
        help="make what plans here the checkpoint's own: planner.json, and copies of the critic and ensemble it names",
    )
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
        "--dynamics",
        type=Path,
        metavar="DIR",
        help="a folder of trajplan dynamics, MOPO or COMBO whose ensemble predicts the same",
    )


def _planner_in(words: list[str]) -> str | None:
    """The planner that a command line names, the last where it names several."""
    name = None
    for word, following in zip(words, [*words[1:], "-"], strict=True):
        if word.startswith("--planner="):
            name = word.partition("=")[2]
        elif word == "--planner" and not following.startswith("-"):
            name = following
    return name


def _planner_of_checkpoint(words: list[str]) -> str:
    """The planner of the checkpoint folder among the words of a command line; on the hub it is not known yet."""
    for before, word in zip(["", *words], words, strict=False):
        folder = Path(word).expanduser()
        if before != "--output" and not word.startswith("-") and (folder / PLANNER_FILE).is_file():
            return saved_type(folder)
    return DEFAULT
