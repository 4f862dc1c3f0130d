"""Training of an ensemble: all members in one batched computation, each on its own sample of the data.

Bootstrap, shuffles and starting weights come from a generator of their own, seeded with the run's seed, and after
every epoch all that the next one needs is written: a run that was killed and resumed learns the same ensemble, and
what comes after it draws the same random numbers.

A dynamics ensemble is trained so, and so is the prior of behaviour that a planner may need beside it.
"""

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from trajplan.baselines.dynamics.settings import EnsembleConfig
from trajplan.data.dataset import OfflineDataset
from trajplan.data.info import DatasetInfo
from trajplan.errors import CheckpointError, DataError, TrajplanError
from trajplan.models.behaviour import BehaviourPrior
from trajplan.models.dynamics import DynamicsEnsemble
from trajplan.models.scaling import Scaling
from trajplan.models.termination import termination_rule
from trajplan.runs.bar import Bar
from trajplan.runs.folder import other_settings
from trajplan.runs.state import moments_of, random_states, restore_moments, restore_random_states
from trajplan.runs.tensors import read_tensors, write_tensors

PROGRESS = "dynamics-training.safetensors"
# A member's held-out loss is better if it fell by more than this share.
IMPROVEMENT = 0.01
ROWS_AT_ONCE = 16_384

Ensemble = DynamicsEnsemble | BehaviourPrior
Tell = Callable[["EnsembleTrainer"], None]


@dataclass(frozen=True)
class Table:
    """Transitions as the ensemble learns them, in the environment's units: inputs (n, I), targets (n, D), ends (n,)."""

    inputs: Tensor
    targets: Tensor
    terminations: Tensor


@dataclass(frozen=True)
class Trained:
    """A trained ensemble and what there is to say of its training.

    Attributes:
        ensemble: every member at its best.
        history: held-out loss of every member before the first epoch and after each, (epochs + 1, M).
        contradictions: recorded transitions where the environment's rule says otherwise about the end of the episode;
            None where no rule is known.
        seconds: that the epochs took, in all processes.
    """

    ensemble: DynamicsEnsemble
    history: Tensor
    contradictions: int | None
    seconds: float


def model_split(
    dataset: OfflineDataset, chosen: np.ndarray | None, config: EnsembleConfig, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Training and held-out episodes of the ensemble among the chosen ones (None: all), at least one each."""
    count = dataset.num_episodes if chosen is None else len(chosen)
    if count < 2:
        larger = "" if chosen is None else ", or a larger --top-fraction"
        raise DataError(
            f"dataset {dataset.id!r}: a dynamics model needs two episodes at least, one of them held out, and there is "
            f"{count} of {dataset.num_episodes}: give more episodes{larger}."
        )
    return dataset.split(config.model_held_out, seed, chosen)


def table_of(dataset: OfflineDataset, episodes: np.ndarray, scaling: Scaling, device: torch.device) -> Table:
    """The transitions of the chosen episodes of the untransformed dataset, with their true next observations."""
    transitions = dataset.transitions(episodes=episodes, device=device)
    batch = transitions.gather(torch.arange(len(transitions), device=device))
    actions = scaling.environment_actions(scaling.actions(batch.actions))
    targets = torch.cat([batch.next_observations - batch.observations, batch.rewards[:, None]], dim=-1)
    return Table(torch.cat([batch.observations, actions], dim=-1), targets, batch.terminations)


def new_ensemble(info: DatasetInfo, config: EnsembleConfig, ends: bool) -> DynamicsEnsemble:
    """An untrained ensemble for a dataset, with the rule of its environment.

    Args:
        info: the dataset.
        config: settings.
        ends: whether any of its episodes ends by a terminal: if so, and no rule is known, it gets a terminal head.
    """
    rule = termination_rule(info.env_spec)
    sizes = (info.observation_dim, info.action_dim, config.model_members, config.model_elites)
    ensemble = DynamicsEnsemble(*sizes, config.model_hidden, rule is None and ends)
    ensemble.rule = rule
    return ensemble


def train_ensemble(
    dataset: OfflineDataset,
    episodes: tuple[np.ndarray, np.ndarray],
    scaling: Scaling,
    config: EnsembleConfig,
    folder: Path,
    *,
    seed: int,
    stopped: Callable[[], bool],
    visible: bool,
    tell: Tell | None = None,
) -> Trained | None:
    """Train the ensemble of a run, or resume where an earlier process stopped.

    Args:
        dataset: untransformed.
        episodes: those to train on, and those held out.
        scaling: on the device to train on.
        config: settings.
        folder: where what a resume needs is written, after every epoch.
        seed: of everything random here.
        stopped: whether the run should stop; asked after every update.
        visible: whether to show a bar and a line for each epoch.
        tell: is told of every epoch, before what a resume needs is written.

    Returns:
        The ensemble with every member's best weights and the elites, or None if it was stopped.
    """
    device = scaling.mean.device
    with seeded(seed, device):
        data, held_out = (table_of(dataset, part, scaling, device) for part in episodes)
        ends = bool(np.asarray(dataset.terminations).any())
        ensemble = new_ensemble(dataset.info, config, ends).to(device)
        against = contradictions(ensemble, (data, held_out))
        if visible:
            announce(ensemble, data, held_out, against)
        learner = fit(
            ensemble, data, held_out, config, folder / PROGRESS, stopped=stopped, visible=visible, tell=tell
        )  # fmt: skip
        if learner is None:
            return None
        return Trained(ensemble, torch.stack(learner.history), against, learner.seconds)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw random numbers from generators of one's own."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def fit(
    ensemble: Ensemble,
    data: Table,
    held_out: Table,
    config: EnsembleConfig,
    path: Path,
    *,
    stopped: Callable[[], bool],
    visible: bool,
    tell: Tell | None = None,
) -> "EnsembleTrainer | None":
    """Train an ensemble until its held-out losses no longer fall; arguments as for `train_ensemble`.

    Args:
        ensemble: untrained, on the device of the data; has its best weights and the elites afterwards.
        data, held_out: what to train on, and what to measure.
        path: of what a resume needs.

    Returns:
        How it went, or None if it was stopped.
    """
    device = data.inputs.device
    learner = EnsembleTrainer(ensemble, config)
    ensemble.fit_scales(data.inputs, data.targets)
    rows = len(data.inputs)
    # Every member's own sample with replacement; drawn again, and the same, on resume.
    samples = torch.randint(rows, (config.model_members, rows), device=device)
    if path.exists():
        learner.restore(path, device)
    else:
        learner.measure(held_out)
    learner.check(path.parent)
    started = time.perf_counter() - learner.seconds
    while learner.unfinished():
        with Bar(0, updates_per_epoch(rows, config), visible, leave=False) as bar:
            for index in _batches(samples, config.model_batch_size):
                learner.update(Table(data.inputs[index], data.targets[index], data.terminations[index]))
                bar.advance(f"epoch {len(learner.history)} of the {learner.name}")
                if stopped():
                    return None
            learner.measure(held_out)
            learner.check(path.parent)
            learner.seconds = time.perf_counter() - started
            if tell is not None:
                tell(learner)
            learner.save(path, device)
            bar.write(learner.line())
    learner.finish()
    return learner


def updates_per_epoch(rows: int, config: EnsembleConfig) -> int:
    """How many updates an epoch over so many transitions is."""
    return math.ceil(rows / config.model_batch_size)


def progress_of(path: Path) -> tuple[int, float]:
    """Epochs done and seconds taken, of what `fit` has written for a resume; none of either where it has not."""
    if not path.exists():
        return 0, 0.0
    parts = read_tensors(path)
    return len(parts["history"]) - 1, float(parts["seconds"])


def announce(ensemble: DynamicsEnsemble, data: Table, held_out: Table, against: int | None) -> None:
    """Say what is trained, on what, and what ends an episode in it; `against` is of `contradictions`."""
    ends = "a learned probability" if ensemble.terminal_head else "nothing, as in the data"
    if against is not None:
        ends = f"the rule of its environment, which {against:,} of the recorded transitions contradict"
    print(
        f"dynamics model: {len(ensemble.networks.weights[0])} networks, "
        f"{sum(parameter.numel() for parameter in ensemble.parameters()) / 1e6:.2f}M parameters; "
        f"{len(data.inputs):,} transitions to train on and {len(held_out.inputs):,} held out; an episode is ended "
        f"by {ends}.",
        file=sys.stderr,
    )


def contradictions(ensemble: DynamicsEnsemble, tables: Iterable[Table]) -> int | None:
    """How many recorded ends, or transitions without one, the rule contradicts; None without a rule."""
    if ensemble.rule is None:
        return None
    size = len(ensemble.target_mean) - 1
    said = [ensemble.rule(part.inputs[:, :size] + part.targets[:, :size]) != part.terminations for part in tables]
    return int(sum(part.sum() for part in said))


class EnsembleTrainer:
    """An ensemble in training: optimiser, each member's best weights, held-out losses and seconds so far.

    Attributes:
        name: what is trained, for people.
    """

    def __init__(self, ensemble: Ensemble, config: EnsembleConfig) -> None:
        self.ensemble, self.config = ensemble, config
        self.name = "dynamics model" if isinstance(ensemble, DynamicsEnsemble) else "behaviour prior"
        groups = ensemble.parameter_groups()
        self.optimizer = torch.optim.Adam(groups, lr=config.model_learning_rate, fused=True)
        self.best = {name: value.detach().clone() for name, value in ensemble.named_parameters()}
        self.best_losses = torch.full((config.model_members,), torch.inf)
        self.history: list[Tensor] = []
        self.idle, self.seconds = 0, 0.0

    def unfinished(self) -> bool:
        """Whether there is another epoch to train."""
        most = self.config.model_max_epochs
        return self.idle < self.config.model_patience and (most is None or len(self.history) <= most)

    def update(self, batch: Table) -> None:
        """One step of every member on its rows: the parts of `batch` are (M, B, ...)."""
        self.optimizer.zero_grad()
        self.ensemble.losses(batch.inputs, batch.targets, batch.terminations).sum().backward()
        self.optimizer.step()

    @torch.no_grad()
    def measure(self, held_out: Table) -> None:
        """Measure every member on the held-out rows, and keep the weights of those that have become better."""
        total = torch.zeros(self.config.model_members, device=held_out.inputs.device)
        parts = (part.split(ROWS_AT_ONCE) for part in (held_out.inputs, held_out.targets, held_out.terminations))
        for inputs, targets, terminations in zip(*parts, strict=True):
            total += self.ensemble.held_out_losses(inputs, targets, terminations) * len(inputs)
        losses = (total / len(held_out.inputs)).cpu()
        better = losses < self.best_losses * (1 - IMPROVEMENT)
        for name, value in self.ensemble.named_parameters():
            self.best[name][better] = value[better]
        self.best_losses = torch.where(better, losses, self.best_losses)
        self.idle = 0 if better.any() else self.idle + 1
        self.history.append(losses)

    def check(self, folder: Path) -> None:
        """Stop at the first held-out loss that is not finite: a member that has diverged does not come back."""
        if not self.history[-1].isfinite().all():
            raise TrajplanError(
                f"The {self.name}'s held-out losses are {self.history[-1].tolist()} after epoch "
                f"{len(self.history) - 1}: it has diverged; give a smaller --model-learning-rate, and look for extreme "
                f"values in the data. {other_settings(folder)}"
            )

    def line(self) -> str:
        """What the last epoch gave, for a person."""
        epoch, losses = len(self.history) - 1, self.best_losses.sort().values
        idle, most = self.idle, self.config.model_max_epochs
        more = self.config.model_patience - idle
        more = more if most is None else min(more, most - epoch)
        left = f"{idle} of {self.config.model_patience} epochs without improvement"
        left += f", at least {tqdm.format_interval(more * self.seconds / max(1, epoch))} left"
        return f"{self.name}, epoch {epoch}: held-out losses {losses[0]:.4f} to {losses[-1]:.4f}, {left}"

    @torch.no_grad()
    def finish(self) -> None:
        """Give the ensemble its best weights, and make those of the smallest held-out losses its elites."""
        for name, value in self.ensemble.named_parameters():
            value.copy_(self.best[name])
        self.ensemble.elites.copy_(self.best_losses.argsort(stable=True)[: self.config.model_elites])
        self.ensemble.requires_grad_(False)

    def save(self, path: Path, device: torch.device) -> None:
        """Write all that the next epoch needs."""
        parts = {"history": torch.stack(self.history), "best_losses": self.best_losses, "idle": torch.tensor(self.idle)}
        parts |= {"seconds": torch.tensor(self.seconds, dtype=torch.float64)}
        parts |= {f"weights/{name}": value for name, value in self.ensemble.named_parameters()}
        parts |= {f"best/{name}": value for name, value in self.best.items()}
        parts |= {f"random/{name}": value for name, value in random_states(device).items()}
        write_tensors(path, parts | moments_of({"moments": self.optimizer}))

    @torch.no_grad()
    def restore(self, path: Path, device: torch.device) -> None:
        """The inverse of `save`."""
        parts = read_tensors(path)
        try:
            self.history, self.best_losses = list(parts["history"]), parts["best_losses"]
            self.idle, self.seconds = int(parts["idle"]), float(parts["seconds"])
            for name, value in self.ensemble.named_parameters():
                value.copy_(parts[f"weights/{name}"])
                self.best[name].copy_(parts[f"best/{name}"])
            moments = {key: value for key, value in parts.items() if key.startswith("moments/")}
            restore_moments({"moments": self.optimizer}, moments)
            random = {key.removeprefix("random/"): value for key, value in parts.items() if key.startswith("random/")}
        except (KeyError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{path} does not fit the run's settings or is damaged: {reason}") from None
        restore_random_states(path, random, device)


def _batches(samples: Tensor, size: int) -> Iterator[Tensor]:
    """Rows (M, B) in an order of each member's own, the last batch smaller."""
    order = torch.rand(samples.shape, device=samples.device).argsort(dim=1)
    yield from samples.gather(1, order).split(size, dim=1)
