"""The parser of every command: what it refuses, it says in one sentence, without a dump of the usage."""

import argparse
import re
from collections.abc import Callable
from itertools import takewhile
from typing import Any, NoReturn

from trajplan.config import KINDS
from trajplan.errors import did_you_mean


class Parser(argparse.ArgumentParser):
    """Takes options by their whole names only, as do the parsers of its sub-commands.

    By a part of its name, `compare --seed 5` would be taken as --seeds 5.

    Attributes:
        complete: adds, once, the options that depend on the words to be parsed; None: there are none.
    """

    complete: "Callable[[Parser, list[str]], None] | None" = None

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords, allow_abbrev=False)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; an unknown option is refused before anything else, as it may be the one that is missing."""
        if self.complete is not None:
            complete, self.complete = self.complete, None
            complete(self, list(args or ()))
        words = takewhile(lambda word: word != "--", args or ())
        if any(isinstance(action, argparse._SubParsersAction) for action in self._actions):
            # The rest is for the parser of the sub-command.
            words = takewhile(lambda word: word.startswith("-"), words)
        for word in words:
            name = word.partition("=")[0]
            if name.startswith("--") and " " not in word and name not in self._option_string_actions:
                hint = did_you_mean(name, self._option_string_actions) or f"see {self.prog} --help"
                self.error(f"{self.prog} has no option {name}; {hint}")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """End with a sentence on standard error and status 2."""
        missing = re.fullmatch("the following arguments are required: (.*)", message)
        message = f"{self.prog} needs {missing[1]}; see {self.prog} --help" if missing else message
        message = re.sub("^argument ([^:]*): expected one argument$", r"\1 needs a value", message)
        message = re.sub("^argument ([^:]*): ", r"\1: ", message)
        self.exit(2, f"trajplan: error: {message}{'' if message.endswith('?') else '.'}\n")

    def _get_value(self, action: argparse.Action, text: str) -> Any:
        kind = KINDS.get(getattr(action.type, "__name__", ""))
        try:
            return super()._get_value(action, text)
        except argparse.ArgumentError:
            if kind is None:
                raise
            raise argparse.ArgumentError(None, f"{_name(action)} is {text!r}; it must be {kind}") from None

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        if isinstance(action, argparse._SubParsersAction):
            hint = did_you_mean(value, known) or f"there are {', '.join(known)}"
            raise argparse.ArgumentError(None, f"Unknown {_name(action).lower()} {value!r}; {hint}")
        raise argparse.ArgumentError(None, f"{_name(action)} is {value!r}; it must be among {', '.join(known)}")


def _name(action: argparse.Action) -> str:
    return max(action.option_strings, key=len) if action.option_strings else str(action.metavar or action.dest)
