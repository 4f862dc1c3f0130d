"""How far models' predictions drift from recorded episodes when only the actions are given (open loop).

Shapes: B starts, C transitions of context, H steps ahead, S observation_dim, A action_dim.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from trajplan.baselines.dynamics.checkpoint import saved_settings as saved_ensemble
from trajplan.baselines.dynamics.training import model_split
from trajplan.baselines.engine.checkpoint import load_dynamics, saved_settings
from trajplan.baselines.engine.scaling import training_episodes
from trajplan.config import require
from trajplan.data.dataset import OfflineDataset
from trajplan.data.info import dataset_ids
from trajplan.devices import choose_device
from trajplan.errors import ConfigError, DataError
from trajplan.evaluation.pictures.open_loop import save_open_loop_picture
from trajplan.files import DYNAMICS_TYPE, make_folder, read_json, sha256, write_json
from trajplan.models.decoder import CachedDecoder, Decoder
from trajplan.models.dynamics import DynamicsEnsemble
from trajplan.models.scaling import Scaling
from trajplan.models.trajectory_transformer import TrajectoryTransformer
from trajplan.planners.tokens import next_transition
from trajplan.tokenizers.tokenizer import Tokenizer
from trajplan.training.checkpoint import load_model_folder

NUMBERS, PICTURE = "open_loop.json", "open_loop.png"
CONTEXT = 5
CHUNK = 64


def evaluate_open_loop(
    folder: str | Path,
    output: str | Path,
    *,
    steps: int = 100,
    starts: int = 256,
    dynamics: str | Path | None = None,
    seed: int = 0,
    device: str | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Measure a checkpoint's open-loop error on the episodes that its training held out; open_loop.json and .png.

    From each start the transformer reads 5 transitions and the present observation, then of every step only the
    recorded action; an ensemble is given the same observation and actions. The recorded episode goes on for `steps`
    steps from each start, so every step of a curve is of the same starts.

    Args:
        folder: of a trained transformer; its dataset must be on this machine or the hub.
        output: folder to write to.
        steps: H, to look ahead.
        starts: B at most, drawn without repetition.
        dynamics: a folder with a dynamics ensemble, of `trajplan dynamics` or of a baseline that learned one, to be
            measured beside, on the same starts.
        seed: of the draw.
        device: where the models are run; None: a GPU if there is one.
        progress: whether to show a bar on standard error.

    Returns:
        What open_loop.json holds: `errors`, by name (`transformer`, `ensemble`, `tokenised`, `still`), as `rms` (the
        root mean square over starts and dimensions) and `median` (over the starts' own), H numbers each, in the data's
        standard deviations, None where a prediction is not finite; `tokenised` is the recorded observations once
        tokenised, and `still` predicts that nothing moves. Beside it, what they were measured on.

    Raises:
        CheckpointError: when a folder is not what it should be.
        ConfigError: for settings out of range, or models that do not fit together.
        DataError: when the dataset is not there, or not the one that was trained on, or no episode is long enough.
    """
    for name, value in {"steps": steps, "starts": starts}.items():
        require(value >= 1, name, value, "be at least 1")
    folder, output, on = Path(folder), Path(output).expanduser(), choose_device(device)
    loaded = load_model_folder(folder, on)
    if loaded.model.config.goal_dim:
        raise ConfigError(f"{folder} predicts for a goal, and recorded episodes have none: train one without --goal.")
    ensemble = None if dynamics is None else load_dynamics(Path(dynamics).expanduser()).to(on)
    if dynamics is not None:
        _check_data(folder, Path(dynamics).expanduser())
    training = loaded.train_config
    if not training.held_out:
        raise ConfigError(f"{folder} was trained on every episode (--held-out 0): none is left to predict.")
    dataset = OfflineDataset.from_minari(dataset_ids(read_json(folder / "dataset.json")))
    if (dataset.num_episodes, dataset.num_transitions) != (loaded.info.num_episodes, loaded.info.num_transitions):
        raise DataError(
            f"dataset {dataset.id} has {dataset.num_transitions} transitions here and had "
            f"{loaded.info.num_transitions} when {folder} was trained: which episodes were held out is not known."
        )
    _, kept, held_out = dataset.hold_out(training.held_out, training.seed)
    context = min(CONTEXT, loaded.model.config.window - 1)
    recorded = draw(kept, held_out, steps=steps, context=context, starts=starts, seed=seed)

    count = len(recorded.rewards)
    chunks = [slice(begin, begin + CHUNK) for begin in range(0, count, CHUNK)]
    decoder = CachedDecoder(loaded.model)
    predicted: dict[str, list[np.ndarray]] = {"transformer": [], "ensemble": []}
    every = 0.1 if sys.stderr.isatty() else 30.0
    with tqdm(total=steps * len(chunks), unit="step", mininterval=every, disable=not progress) as bar:
        for rows in chunks:
            part = recorded.of(rows)
            guess = predict(loaded.model, loaded.tokenizer, part, decoder, bar.update)
            predicted["transformer"].append(guess)
            if ensemble is not None:
                guess = predict_by_ensemble(ensemble, Scaling.of(loaded.info).to(on), part)
                predicted["ensemble"].append(guess)
    guesses = {name: np.concatenate(parts) for name, parts in predicted.items() if parts}
    guesses["tokenised"] = tokenised(loaded.tokenizer, recorded.truth, on)
    guesses["still"] = np.broadcast_to(recorded.present[:, None], recorded.truth.shape)
    std = np.asarray(dataset.statistics().std, np.float64)
    report = {
        "dataset": dataset.id,
        "episodes": {"all": dataset.num_episodes, "held_out": len(held_out), "used": len(np.unique(recorded.episodes))},
        "starts": count,
        "horizon": steps,
        "context": context,
        "seed": seed,
        "model_sha256": sha256(folder / "model.safetensors"),
        "ensemble": dynamics and _about(Path(dynamics).expanduser(), dataset, recorded.episodes),
        "errors": {name: errors(guess, recorded.truth, std) for name, guess in guesses.items()},
    }
    make_folder(output)
    write_json(output / NUMBERS, report)
    save_open_loop_picture(report, output / PICTURE)
    return report


@dataclass(frozen=True)
class Recorded:
    """Stretches of recorded episodes, C transitions before a start and H after it.

    Attributes:
        observations: (B, C + 1 + H, S) float32.
        actions: (B, C + H, A) float32.
        rewards: (B, C) float32, before the start.
        episodes: (B,) int64, which each lies in.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    episodes: np.ndarray

    @property
    def present(self) -> np.ndarray:
        """(B, S), what is observed at the start."""
        return self.observations[:, self.rewards.shape[1]]

    @property
    def truth(self) -> np.ndarray:
        """(B, H, S), what came 1 to H steps later."""
        return self.observations[:, self.rewards.shape[1] + 1 :]

    def of(self, rows: slice) -> "Recorded":
        """Some of them."""
        return Recorded(self.observations[rows], self.actions[rows], self.rewards[rows], self.episodes[rows])


def draw(
    dataset: OfflineDataset, episodes: np.ndarray, *, steps: int, context: int, starts: int, seed: int
) -> Recorded:
    """At most `starts` stretches of some of the episodes, drawn without repetition from all that there are."""
    lengths = dataset.lengths[episodes]
    room = np.maximum(lengths - context - steps + 1, 0)
    if room.sum() == 0:
        raise DataError(
            f"None of the {len(episodes)} held-out episodes of dataset {dataset.id} has the {context + steps} steps "
            f"that it takes to look {steps} ahead; the longest has {lengths.max()}."
        )
    ends = np.cumsum(room)
    total = int(ends[-1])
    chosen = np.sort(np.random.default_rng(seed).choice(total, min(starts, total), replace=False))
    which = np.searchsorted(ends, chosen, side="right")
    rows = dataset.offsets[episodes[which]] + context + chosen - (ends - room)[which]
    around = np.arange(-context, steps + 1)
    # Row r of an episode's transitions is row r + episode of its observations, one more each.
    return Recorded(
        observations=np.asarray(dataset.observations[(rows + episodes[which])[:, None] + around], np.float32),
        actions=np.asarray(dataset.actions[rows[:, None] + around[:-1]], np.float32),
        rewards=np.asarray(dataset.rewards[rows[:, None] + around[:context]], np.float32),
        episodes=episodes[which],
    )


@torch.inference_mode()
def predict(
    model: TrajectoryTransformer,
    tokenizer: Tokenizer,
    recorded: Recorded,
    decoder: Decoder,
    advance: Callable[[], Any] = lambda: None,
) -> np.ndarray:
    """What the transformer takes for likeliest under the recorded actions.

    Observations and rewards after the start are its own likeliest tokens, fed back (Janner, Li, Levine 2021, section
    4.1). At the end of the trained window it goes on from the newest half.

    Args:
        model, tokenizer: of one checkpoint.
        recorded: B stretches.
        decoder: of the model.
        advance: called after every step.

    Returns:
        (B, H, S) float32, 1 to H steps ahead.
    """
    S, A, J = model.config.observation_dim, model.config.action_dim, model.config.transition_dim
    B, C = recorded.rewards.shape
    H = recorded.actions.shape[1] - C
    seen = tokenizer.encode(torch.from_numpy(recorded.observations[:, : C + 1]).to(model.device), slice(0, S))
    given = tokenizer.encode(torch.from_numpy(recorded.actions).to(model.device), slice(S, S + A))
    rewards = torch.from_numpy(recorded.rewards[..., None]).to(model.device)
    earned = tokenizer.encode(rewards, slice(S + A, S + A + 1))
    tokens = torch.zeros(B, C + H + 1, J, dtype=torch.int64, device=model.device)  # returns-to-go are never read
    tokens[:, : C + 1, :S] = seen
    tokens[:, : C + H, S : S + A] = given
    tokens[:, :C, S + A] = earned[..., 0]

    decoder.begin(tokens[:, : C + 1].flatten(1)[:, : C * J + S], 1, 1)
    in_window = C + 1
    for step in range(C, C + H):
        logits = torch.empty(0)
        for dim in range(S, S + A):
            logits = decoder.advance(tokens[:, step, dim, None])
        tokens[:, step, S + A] = _likeliest(logits)
        decoder.advance(tokens[:, step, S + A, None])
        past, done = tokens[:, None, :C], tokens[:, None, C : step + 1]
        logits, in_window = next_transition(decoder, past, done, in_window, model.config.window)
        for dim in range(S):
            tokens[:, step + 1, dim] = _likeliest(logits)
            logits = decoder.advance(tokens[:, step + 1, dim, None])
        advance()
    return tokenizer.decode(tokens[:, C + 1 :, :S], slice(0, S)).cpu().numpy()


def _likeliest(logits: Tensor) -> Tensor:
    """Tokens (B,) of logits (B, 1, V + 1), an episode's end left out: the recording went on."""
    return logits[:, 0, :-1].argmax(-1)


@torch.inference_mode()
def predict_by_ensemble(dynamics: DynamicsEnsemble, scaling: Scaling, recorded: Recorded) -> np.ndarray:
    """The same of a dynamics ensemble, (B, H, S): the mean of the elites' means, fed back, inside its range."""
    device = dynamics.elites.device
    actions = torch.from_numpy(recorded.actions[:, recorded.rewards.shape[1] :]).to(device)
    actions = scaling.environment_actions(scaling.actions(actions))
    states, predicted = torch.from_numpy(recorded.present).to(device), []
    for step in range(actions.shape[1]):
        change = dynamics.predict(states, actions[:, step], dynamics.elites).mean.mean(0)[:, :-1]
        states = (states + change).clamp(dynamics.low[:-1], dynamics.high[:-1])
        predicted.append(states)
    return torch.stack(predicted, 1).cpu().numpy()


def tokenised(tokenizer: Tokenizer, truth: np.ndarray, device: torch.device) -> np.ndarray:
    """(B, H, S) recorded observations as the tokens can tell them: no model on these tokens comes nearer."""
    dims = slice(0, truth.shape[-1])
    return tokenizer.decode(tokenizer.encode(torch.from_numpy(truth).to(device), dims), dims).cpu().numpy()


def errors(guess: np.ndarray, truth: np.ndarray, std: np.ndarray) -> dict[str, list[float | None]]:
    """Errors of guesses (B, H, S) by step ahead, in standard deviations (S,), as `evaluate_open_loop` says."""
    std = np.where(std > 0, std, 1.0)
    # In float64, where the square of every float32 has room.
    square = (((guess.astype(np.float64) - truth) / std) ** 2).mean(-1)
    found = {"rms": np.sqrt(square.mean(0)), "median": np.median(np.sqrt(square), axis=0)}
    return {name: [float(e) if np.isfinite(e) else None for e in curve] for name, curve in found.items()}


def _check_data(folder: Path, dynamics: Path) -> None:
    ours, theirs = (dataset_ids(read_json(path / "dataset.json")) for path in (folder, dynamics))
    if ours != theirs:
        raise ConfigError(
            f"The ensemble in {dynamics} learned from {' + '.join(theirs)}, the model in {folder} from "
            f"{' + '.join(ours)}: compare two of the same dataset."
        )


def _about(folder: Path, dataset: OfflineDataset, used: np.ndarray) -> dict[str, Any]:
    """What the ensemble is, and how many of the starts lie in episodes that it, unlike the other, learned from."""
    if read_json(folder / "config.json").get("model_type") == DYNAMICS_TYPE:
        method, config, weights = "dynamics", saved_ensemble(folder), "model.safetensors"
        learned, _ = model_split(dataset, None, config, config.seed)
    else:
        method, config, run = saved_settings(folder)
        weights = "dynamics.safetensors"
        learned, _ = model_split(dataset, training_episodes(dataset, run), config, run.seed)
    return {
        "method": method,
        "members": config.model_members,
        "elites": config.model_elites,
        "sha256": sha256(folder / weights),
        "starts_in_its_training": int(np.isin(used, learned).sum()),
    }
