"""What a person sees of a run: a bar with loss, tokens per second and time left, and a line per measurement."""

import sys
import time
from typing import Any, Self

from tqdm import tqdm

from trajplan.models.trajectory_transformer import KINDS, TrajectoryTransformer
from trajplan.training.config import TrainConfig


class Progress:
    """The bar of one run, on the main process and on a terminal; elsewhere only the lines, or nothing.

    Attributes:
        tokens_per_second: speed since the last call of `show`.
    """

    def __init__(self, done: int, total: int, config: TrainConfig, model: TrajectoryTransformer, visible: bool) -> None:
        self.visible = visible
        self._tokens = config.batch_size * config.window * model.config.transition_dim
        self._done, self._shown, self._since = done, done, time.perf_counter()
        self._bar = tqdm(
            total=total,
            initial=done,
            unit="update",
            dynamic_ncols=True,
            disable=not (visible and sys.stderr.isatty()),
            smoothing=0.05,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def step(self, loss: float) -> None:
        """Count an update."""
        self._done += 1
        self._bar.set_postfix_str(f"loss {loss:.3f}, {self._rate(self.tokens_per_second)}", refresh=False)
        self._bar.update()

    @property
    def tokens_per_second(self) -> float:
        """Tokens a second, over all processes, since `show` was last called."""
        return (self._done - self._shown) * self._tokens / max(1e-9, time.perf_counter() - self._since)

    def show(self, values: dict[str, Any]) -> None:
        """Print a line if the held-out loss was measured, and measure the speed anew from here on."""
        if self.visible and "held_out/loss" in values:
            kinds = ", ".join(f"{kind} {values[f'held_out/{kind}']:.3f}" for kind in KINDS)
            tqdm.write(
                f"update {values['update']}: loss {values['loss']:.3f}, held-out {values['held_out/loss']:.3f} "
                f"({kinds}), {self._rate(values['tokens_per_second'])}",
                file=sys.stderr,
            )
        self._shown, self._since = self._done, time.perf_counter()

    @staticmethod
    def _rate(tokens_per_second: float) -> str:
        return f"{tokens_per_second:,.0f} tokens/s"
