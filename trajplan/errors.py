"""What a user can put right, and how a misspelt name is answered."""

import difflib
import re
from collections.abc import Iterable


class TrajplanError(Exception):
    """What a user can put right; its message is one sentence that says what is wrong and what to do."""


class DataError(TrajplanError):
    """A dataset that cannot be found, read or used; the message names dataset, episode and field."""


class ConfigError(TrajplanError):
    """A setting that is unknown or out of range."""


class CheckpointError(TrajplanError):
    """A checkpoint folder that is missing, incomplete or made for something else."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean NAME?` of the name that comes closest to a word by its letters, else by its beginning or initials.

    Empty where none does. `lr` are the initials of `learning-rate`.
    """
    names = {name.lstrip("-").lower(): name for name in known}
    word = str(word).lstrip("-").lower()
    starts = [name for name in names if len(word) > 1 and (name.startswith(word) or _initials(name) == word)]
    close = [*difflib.get_close_matches(word, names, n=1), *starts]
    return f"did you mean {names[close[0]]}?" if close else ""


def _initials(name: str) -> str:
    return "".join(part[:1] for part in re.split("[-_]", name))
