"""Ctrl-C and SIGTERM as a wish that the loop asks about, so that a run can save before it stops."""

import signal
import threading
import time
from types import FrameType
from typing import Self

# At a terminal a process under a launcher gets one Ctrl-C twice: from the terminal and from the launcher.
SAME_SECONDS = 2.0


class Interrupt:
    """While entered, the first SIGINT or SIGTERM only sets `wanted`; a later one takes its usual course."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.wanted = False
        self._first = 0.0
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        # Python delivers signals to the main thread only, and lets no other one set handlers.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in self.SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.wanted:
            self.wanted, self._first = True, time.monotonic()
        elif time.monotonic() - self._first > SAME_SECONDS:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before = {}
