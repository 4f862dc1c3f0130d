"""How long a run will take here, measured before its first update on a few that are not applied."""

import time
from collections.abc import Callable

import torch

from trajplan.training.run_state import Run

# A run with fewer updates left is not worth the measurement.
LEAST_UPDATES = 50
# An update that takes as long, in seconds, is measured once, others so many times more.
SLOW, REPEATS = 5.0, 3
LONG = 3600.0
# Of the time of an update's window, what a held-out window takes: it has no backward pass.
FORWARD_SHARE = 1 / 3


def tell_time(run: Run, compute: Callable[[], object], tell: Callable[[str], None]) -> None:
    """Say how long the rest of a run will take; a collective call that leaves the run as it is.

    Args:
        run: the run; nothing is measured or said if it has only a few updates left.
        compute: computes the gradients of the update to come, and waits for them.
        tell: takes the sentences, on the main process.
    """
    left = (run.config.updates or 0) - run.done
    if left < LEAST_UPDATES or run.over:
        return
    update = seconds_per_update(run, compute)
    whole = update * left * (1 + _measured_share(run))
    said = f"About {duration(whole)} {'left ' if run.done else ''}here, at {update:.3g} s an update."
    if whole > LONG and not run.done:
        updates = _two_digits(left * LONG / whole)
        passes = run.batches.order.epoch_of(updates)
        said += f" For about an hour: --updates {updates} ({passes:.2g} passes over the windows)."
    tell(said)


def seconds_per_update(run: Run, compute: Callable[[], object]) -> float:
    """The mean over a few computations of gradients, alike on all processes; a collective call.

    Gradients are thrown away and random numbers put back, so the run's losses and weights are those without it.
    """
    device = run.accelerator.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        if run.config.compile:
            compute()
        # The first takes longer, for what is done once.
        seconds = _seconds(run, compute)
        if seconds < SLOW:
            seconds = sum(_seconds(run, compute) for _ in range(REPEATS)) / REPEATS
    run.optimizer.zero_grad()
    return seconds


def duration(seconds: float) -> str:
    """A time in the two largest units that it has, such as `2 h 40 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} days {hours % 24} h"


def _seconds(run: Run, compute: Callable[[], object]) -> float:
    start = time.perf_counter()
    compute()
    run.optimizer.zero_grad()
    seconds = torch.tensor(time.perf_counter() - start, device=run.accelerator.device)
    return float(run.accelerator.reduce(seconds, "mean"))


def _measured_share(run: Run) -> float:
    """The time of the held-out measurements, as a share of that of the updates between them."""
    if run.held_out is None:
        return 0.0
    windows = run.config.batch_size * run.config.eval_every
    return FORWARD_SHARE * len(run.held_out.index) / windows


def _two_digits(value: float) -> int:
    """A whole number of at most `value`, of two digits and zeros."""
    unit = 10 ** max(0, len(str(int(value))) - 2)
    return max(1, int(value) // unit * unit)
