"""Drawing tokens from logits, with the randomness given from outside."""

from torch import Tensor


def sample(logits: Tensor, noise: Tensor | None, *, top_k: int | None, cdf: float | None, temperature: float) -> Tensor:
    """One token per row, by inversion of the cumulative distribution.

    Args:
        logits: (..., V).
        noise: (...) uniform in [0, 1), what the draw is made with; None only where `top_k` is 1.
        top_k: keep the k likeliest tokens; 1 is greedy.
        cdf: keep the smallest set of likeliest tokens whose mass reaches this. The paper's code counts from the
            other end, what the unlikeliest tokens hold that it drops: its cdf 0.6 is 0.4 here.
        temperature: divides the logits, before either cut.

    Returns:
        (...) int64 tokens.
    """
    if top_k == 1:
        return logits.argmax(-1)
    if noise is None:
        raise ValueError("sampling needs noise unless top_k is 1")
    probabilities = (logits.float() / temperature).softmax(-1)
    if top_k is None and cdf is None:
        return _invert(probabilities, noise)
    kept = min(top_k or logits.shape[-1], logits.shape[-1])
    probabilities, tokens = probabilities.topk(kept, -1)
    if cdf is not None:
        before = probabilities.cumsum(-1) - probabilities
        probabilities = probabilities.masked_fill(before >= cdf, 0)
    return tokens.gather(-1, _invert(probabilities, noise)[..., None])[..., 0]


def is_random(top_k: int | None) -> bool:
    """Whether `sample` needs noise under these settings."""
    return top_k != 1


def _invert(mass: Tensor, noise: Tensor) -> Tensor:
    """The first index whose cumulative mass (..., V) passes `noise` (...) of the total."""
    cumulative = mass.cumsum(-1)
    target = noise[..., None] * cumulative[..., -1:]
    index = (cumulative <= target).sum(-1)
    # Rounding can leave the target at the total itself: then the last token with mass is meant.
    last = mass.shape[-1] - 1 - (mass > 0).flip(-1).int().argmax(-1)
    return index.minimum(last)
