"""The registry of tokenizers: a new one is a file with a fit function and a line here."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from trajplan.errors import ConfigError
from trajplan.tokenizers.quantile import fit_quantile
from trajplan.tokenizers.tokenizer import Tokenizer
from trajplan.tokenizers.uniform import fit_uniform

Kind = Literal["quantile", "uniform"]

TOKENIZERS: dict[str, Callable[[np.ndarray, int, Sequence[int | None] | None], Tokenizer]] = {
    "quantile": fit_quantile,
    "uniform": fit_uniform,
}


def fit_tokenizer(kind: str, joined: np.ndarray, bins: int, discrete: Sequence[int | None] | None = None) -> Tokenizer:
    """Fit the tokenizer named `kind` to transitions.

    Args:
        kind: a name in `TOKENIZERS`.
        joined: (N, J) float32 rows of observation, action, reward and return-to-go, maybe memory-mapped.
        bins: V, the most bins a dimension may use.
        discrete: per dimension the number of actions, or None for real numbers; None: no dimension is discrete.

    Raises:
        ConfigError: if there is no such tokenizer, or too few bins for the discrete actions.
        DataError: if there are no rows, a value is NaN or infinite, or a discrete value is none of its actions.
    """
    if kind not in TOKENIZERS:
        raise ConfigError(f"Unknown tokenizer {kind!r}; there are {', '.join(sorted(TOKENIZERS))}.")
    return TOKENIZERS[kind](joined, bins, discrete)
