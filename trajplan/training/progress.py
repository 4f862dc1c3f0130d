"""What a person sees of a pretraining run: a bar with loss, tokens per second and time left, a line per measurement."""

from typing import Any

from trajplan.models.trajectory_transformer import KINDS, TrajectoryTransformer
from trajplan.runs.bar import Bar
from trajplan.training.best import Best
from trajplan.training.config import TrainConfig


class Progress(Bar):
    """The bar of one run on the main process, its speed in tokens over all processes."""

    def __init__(self, done: int, total: int, config: TrainConfig, model: TrajectoryTransformer, visible: bool) -> None:
        tokens = config.batch_size * config.window * model.config.transition_dim
        super().__init__(done, total, visible, "tokens", tokens)
        self._patience = config.patience

    def step(self, loss: float) -> None:
        """Count an update."""
        self.advance(f"loss {loss:.3f}")

    def show(self, values: dict[str, Any], best: Best) -> None:
        """Print a line if the held-out loss was measured, one more if it has risen; measure the speed anew."""
        if "held_out/loss" in values:
            kinds = ", ".join(f"{kind} {values[f'held_out/{kind}']:.3f}" for kind in KINDS)
            self.write(
                f"update {values['update']}: loss {values['loss']:.3f}, held-out {values['held_out/loss']:.3f} "
                f"({kinds}), {self.speed_text(values['tokens_per_second'])}, {self.time_left()} left"
            )
            if warning := best.warning(values["held_out/loss"], self._patience):
                self.write(warning)
        self.restart_clock()
