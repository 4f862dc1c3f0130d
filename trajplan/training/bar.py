"""The progress bar of a run, with its speed."""

import sys
import time
from typing import Self

from tqdm import tqdm


class Bar:
    """Updates done and time left, on a terminal; elsewhere only the lines that are written through it, or nothing.

    Args:
        done, total: updates done before, and in all.
        visible: whether anything is shown at all.
        unit, per_update: what the speed is counted in, and how many of these an update is.
        leave: whether it stays on the terminal when it is closed.
    """

    def __init__(
        self, done: int, total: int, visible: bool, unit: str = "updates", per_update: int = 1, leave: bool = True
    ) -> None:
        self.visible = visible
        self._unit, self._per_update = unit, per_update
        self._total, self._done, self._first, self._shown = total, done, done, done
        self._started = self._since = time.perf_counter()
        self._bar = tqdm(
            total=total,
            initial=done,
            unit="update",
            dynamic_ncols=True,
            disable=not (visible and sys.stderr.isatty()),
            smoothing=0.05,
            leave=leave,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def advance(self, text: str | None = None) -> None:
        """Count an update, and show a text beside the bar from here on."""
        self._done += 1
        if text is not None:
            self._bar.set_postfix_str(f"{text}, {self.speed_text(self.speed)}", refresh=False)
        self._bar.update()

    @property
    def speed(self) -> float:
        """Units a second since `restart_clock` was last called."""
        return (self._done - self._shown) * self._per_update / max(1e-9, time.perf_counter() - self._since)

    def time_left(self) -> str:
        """The time that the remaining updates will take if they go on as so far, measurements between them included."""
        elapsed = time.perf_counter() - self._started
        return tqdm.format_interval((self._total - self._done) * elapsed / max(1, self._done - self._first))

    def restart_clock(self) -> None:
        """Measure the speed anew from here on."""
        self._shown, self._since = self._done, time.perf_counter()

    def write(self, line: str) -> None:
        """Print a line above the bar."""
        if self.visible:
            tqdm.write(line, file=sys.stderr)

    def speed_text(self, speed: float) -> str:
        """A speed with its unit."""
        return f"{speed:,.0f} {self._unit}/s"
