"""The progress bar of a run, with its speed."""

import sys
import time
from typing import Self

from tqdm import tqdm

# Seconds between two lines where standard error is no terminal.
LINE_EVERY = 30.0


class Bar:
    """Updates done, speed and time left: as a bar on a terminal, elsewhere as a line now and then and at the end.

    Args:
        done, total: updates done before, and in all.
        visible: whether anything is shown at all.
        unit, per_update: what the speed is counted in, and how many of these an update is.
        leave: whether it stays on the terminal, or has a line at the end, when it is closed.
    """

    def __init__(
        self, done: int, total: int, visible: bool, unit: str = "updates", per_update: int = 1, leave: bool = True
    ) -> None:
        self.visible = visible
        self._unit, self._per_update = unit, per_update
        self._total, self._done, self._first = total, done, done
        self._lines, self._leave, self._text = visible and not sys.stderr.isatty(), leave, ""
        self.start()
        self._bar = tqdm(
            total=total,
            initial=done,
            unit="update",
            dynamic_ncols=True,
            disable=not visible or self._lines,
            smoothing=0.05,
            leave=leave,
        )

    def start(self) -> None:
        """Count the time from here on."""
        self._started = self._since = self._told_at = time.perf_counter()
        self._shown = self._told = self._done

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()
        if self._lines and self._leave and self._told < self._done:
            self._tell()

    def advance(self, text: str | None = None) -> None:
        """Count an update, and show a text beside the bar from here on."""
        self._done += 1
        if text is not None:
            self._text = text
            self._bar.set_postfix_str(f"{text}, {self.speed_text(self.speed)}", refresh=False)
        self._bar.update()
        if self._lines and time.perf_counter() - self._told_at >= LINE_EVERY:
            self._tell()

    @property
    def speed(self) -> float:
        """Units a second since `restart_clock` was last called."""
        return self._speed(self._shown, self._since)

    def time_left(self) -> str:
        """The time that the remaining updates will take if they go on as so far, measurements between them included."""
        elapsed = time.perf_counter() - self._started
        return tqdm.format_interval((self._total - self._done) * elapsed / max(1, self._done - self._first))

    def restart_clock(self) -> None:
        """Measure the speed anew from here on."""
        self._shown, self._since = self._done, time.perf_counter()

    def write(self, line: str) -> None:
        """Print a line above the bar."""
        self._told, self._told_at = self._done, time.perf_counter()
        if self.visible:
            tqdm.write(line, file=sys.stderr)

    def speed_text(self, speed: float) -> str:
        """A speed with its unit."""
        return f"{speed:,.0f} {self._unit}/s"

    def _tell(self) -> None:
        """Print a line in place of a bar, with the speed since the last one."""
        parts = [self._text, self.speed_text(self._speed(self._told, self._told_at)), f"{self.time_left()} left"]
        self.write(f"update {self._done:,} of {self._total:,}: {', '.join(part for part in parts if part)}")

    def _speed(self, done: int, since: float) -> float:
        return (self._done - done) * self._per_update / max(1e-9, time.perf_counter() - since)
