"""What a person sees of an evaluation: steps, finished episodes and the time left at most."""

import sys
import time

from tqdm import tqdm

# Seconds between two lines where standard error is no terminal.
LINE_EVERY = 30.0


class StepBar:
    """A bar on a terminal, elsewhere a line now and then; an episode that ends early shortens what is left.

    Args:
        episodes: to be run.
        limit: the longest that an episode can be, in steps, or None where nobody knows.
        visible: whether anything is shown at all.
    """

    def __init__(self, episodes: int, limit: int | None, visible: bool) -> None:
        self.episodes, self.limit = episodes, limit
        self.steps, self.ended = 0, 0
        self.most = None if limit is None else episodes * limit
        self._lines = visible and not sys.stderr.isatty()
        self._started = self._told = time.perf_counter()
        # Without miniters a slow step, of a long plan, would be shown only with those after it.
        self._bar = tqdm(
            total=self.most,
            unit="step",
            dynamic_ncols=True,
            disable=not visible or self._lines,
            smoothing=0.05,
            miniters=0,
        )

    def advance(self, steps: int, lengths: list[int]) -> None:
        """Count steps, and episodes of these lengths that ended by them."""
        self.steps += steps
        self.ended += len(lengths)
        if self.limit is not None and self.most is not None:
            self.most -= sum(self.limit - length for length in lengths)
            self._bar.total = self.most
        self._bar.set_postfix_str(self._episodes(), refresh=False)
        self._bar.update(steps)
        if self._lines and time.perf_counter() - self._told >= LINE_EVERY:
            self._told = time.perf_counter()
            tqdm.write(self.text(), file=sys.stderr)

    def text(self) -> str:
        """A line in place of the bar."""
        speed = self.steps / max(1e-9, time.perf_counter() - self._started)
        most = "" if self.most is None else f" of {'at most ' if self.ended < self.episodes else ''}{self.most:,}"
        left = "" if self.most is None else f", {tqdm.format_interval((self.most - self.steps) / speed)} left at most"
        return f"step {self.steps:,}{most}: {self._episodes()}, {speed:.1f} steps/s{left}"

    def _episodes(self) -> str:
        return f"{self.ended} of {self.episodes} episodes"

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
