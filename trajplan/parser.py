"""The parser of every command."""

import argparse
from typing import Any


class Parser(argparse.ArgumentParser):
    """Takes options by their whole names only, as do the parsers of its sub-commands.

    By a part of its name, `compare --seed 5` would be taken as --seeds 5.
    """

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords, allow_abbrev=False)
