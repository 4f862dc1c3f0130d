"""Which weights of a run are kept: those of the lowest held-out loss."""

import math
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from trajplan.training.sharded import full_weights

# The loss has risen when so many measurements in a row were not better, and the last is worse by so much of the best.
RISEN_MEASUREMENTS, RISEN_SHARE = 3, 0.01


@dataclass
class Best:
    """The lowest held-out loss of a run so far, and the weights that had it.

    Attributes:
        update, loss: of that measurement; None before the first.
        waited: measurements since then.
        weights: the full model's, on the CPU, on the main process alone; empty before the first measurement.
        told: whether the person was told that the loss has risen.
    """

    update: int | None = None
    loss: float | None = None
    waited: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)
    told: bool = False

    def measured(self, update: int, loss: float, model: nn.Module) -> None:
        """Take note of a measurement after `update`; a collective call."""
        if math.isfinite(loss) and (self.loss is None or loss < self.loss):
            # Copies, as on a CPU the full weights may be the model's own memory.
            weights = {name: tensor.clone() for name, tensor in full_weights(model).items()}
            self.update, self.loss, self.waited, self.weights = update, loss, 0, weights
        else:
            self.waited += 1

    def exhausts(self, patience: int | None) -> bool:
        """Whether so many measurements as a run has patience for were not better."""
        return patience is not None and self.waited >= patience

    def warning(self, loss: float, patience: int | None) -> str | None:
        """What to say, once, when the loss has clearly risen; None before, and after it was said."""
        if self.told or self.loss is None or self.waited < RISEN_MEASUREMENTS or loss <= self.loss * (1 + RISEN_SHARE):
            return None
        self.told = True
        stop = (
            f"the run stops after {patience} measurements without a better one"
            if patience is not None
            else "stop with Ctrl-C, or give --patience N to stop after N measurements without a better one"
        )
        return (
            f"The held-out loss rises: {loss:.3f} now, {self.loss:.3f} at update {self.update:,}, whose weights are "
            f"kept; {stop}. More data, dropout or a smaller model help against it."
        )

    def about(self) -> dict[str, Any]:
        """What a checkpoint notes of it, beside the weights."""
        return {"update": self.update, "loss": self.loss, "waited": self.waited}
