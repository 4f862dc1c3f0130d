"""The loss on held-out episodes, per kind of token."""

import torch
from accelerate import Accelerator
from torch import nn

from trajplan.data.windows import Windows
from trajplan.models.trajectory_transformer import KINDS
from trajplan.training.batches import TokenTable
from trajplan.training.goals import HELD_OUT, WindowGoals


class HeldOut:
    """Evenly spaced windows of the held-out episodes, the same ones every time.

    Args:
        windows: all windows of the held-out episodes.
        count: how many to measure on.
        batch_size: windows in one forward pass of one process.
        goals: of the windows, the same ones every time; None without goals.
    """

    def __init__(
        self, table: TokenTable, windows: Windows, count: int, batch_size: int, goals: WindowGoals | None = None
    ) -> None:
        self.table, self.windows, self.batch_size = table, windows, batch_size
        count = min(count, len(windows))
        self.index = torch.arange(count, device=table.tokens.device) * len(windows) // count
        self.goals = None if goals is None else goals.of(self.index, HELD_OUT)

    @torch.no_grad()
    def losses(self, model: nn.Module, accelerator: Accelerator) -> dict[str, float]:
        """Mean cross-entropy in nats per token of each kind, and `loss`, the weighted mean that training minimises.

        The model is left in the mode that it was in; no random number is drawn.
        """
        training = model.training
        model.eval()
        sums = torch.zeros(5, device=accelerator.device)
        counts = torch.zeros(4, device=accelerator.device, dtype=torch.int64)
        # Every process makes the same number of passes, as sharded models require.
        for places in _shares(torch.arange(len(self.index), device=self.index.device), self.batch_size, accelerator):
            batch = self.table.batch(*self.windows.gather_rows(self.index[places]))
            goals = None if self.goals is None else self.goals[places]
            output = model(batch.tokens, targets=batch.targets, valid=batch.valid, goals=goals)
            means = torch.stack([output.losses[kind] for kind in KINDS])
            sums[:4] += torch.where(batch.counts > 0, means * batch.counts, 0)
            sums[4] += output.loss * batch.counts.sum()
            counts += batch.counts
        model.train(training)
        sums, counts = accelerator.reduce(sums), accelerator.reduce(counts)
        values = torch.cat([sums[4:] / counts.sum(), sums[:4] / counts]).tolist()
        return dict(zip(("loss", *KINDS), values, strict=True))


def _shares(index: torch.Tensor, batch_size: int, accelerator: Accelerator) -> list[torch.Tensor]:
    """This process's batches: every process gets equally many, none empty."""
    world, rank = accelerator.num_processes, accelerator.process_index
    if len(index) < world:
        # All measure on the same windows, which leaves the means as they are.
        return [index]
    return list(index[rank::world].tensor_split(max(1, len(index) // (batch_size * world))))
