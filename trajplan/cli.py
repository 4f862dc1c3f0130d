"""The `trajplan` command: a module of `trajplan.commands` per sub-command or action, imported only when it is run.

Its options are in a module of `trajplan.commands.options`, which is light, so that `--help` and a mistake in a line are
answered at once.
"""

import argparse
import os
import shlex
import signal
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from itertools import takewhile
from types import FrameType

from trajplan import __version__
from trajplan.errors import TrajplanError
from trajplan.parser import Parser

COMMANDS = {
    "datasets": "list, show, collect, import and rewrite datasets",
    "train": "train a Trajectory Transformer on a dataset",
    "baseline": "train a method to compare with, such as IQL",
    "dynamics": "learn a dynamics ensemble, to plan on",
    "evaluate": "run a trained controller in its environment",
    "compare": "train and evaluate several methods on one dataset, and report",
    "push": "share a checkpoint on the Hugging Face hub",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (0 done, 1 failed midway, 2 bad input, 130 interrupted)."""
    interrupts = _Interrupts()
    try:
        args = _parse(list(sys.argv[1:] if argv is None else argv))
        action = getattr(args, "action", None)
        name = f"{args.command}_{action}" if action else args.command
        return int(import_module(f"trajplan.commands.{name}").run(args) or 0)
    except TrajplanError as error:
        print(f"trajplan: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader (`| head`) has left; the flush at exit must not complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (KeyboardInterrupt, Exception) as error:
        # torch swallows a Ctrl-C while it imports numpy, and fails afterwards for want of it.
        if not isinstance(error, KeyboardInterrupt) and not interrupts.seen:
            raise
        print("trajplan: interrupted", file=sys.stderr)
        return 130
    finally:
        interrupts.close()


class _Interrupts:
    """Remembers whether there was a Ctrl-C, which otherwise takes its usual course."""

    def __init__(self) -> None:
        self.seen = False
        # Python delivers signals to the main thread only; a handler that somebody else has set is left alone.
        self._set = threading.current_thread() is threading.main_thread()
        self._set = self._set and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self._set:
            signal.signal(signal.SIGINT, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.seen = True
        signal.default_int_handler(number, frame)

    def close(self) -> None:
        if self._set:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(prog="trajplan", description="Planning by sequence modelling.")
    parser.add_argument("--version", action="version", version=f"trajplan {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    # The others need their one-line help alone.
    chosen = next((word for word in argv if not word.startswith("-")), None)
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name == chosen:
            import_module(f"trajplan.commands.options.{name}").add_arguments(subparser)
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        words = ["trajplan", *takewhile(lambda word: not word.startswith("-") and word not in unknown, argv), "--help"]
        parser.error(f"Unexpected argument {shlex.join(unknown)}; see {shlex.join(words)}")
    return args
