"""How far a model's predictions drift from recorded episodes when only the actions are given (open loop)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trajplan.data.dataset import OfflineDataset
from trajplan.errors import ConfigError, DataError
from trajplan.models.decoder import CachedDecoder, Decoder
from trajplan.models.trajectory_transformer import TrajectoryTransformer
from trajplan.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True)
class OpenLoopErrors:
    """Prediction error by how many steps ahead, in the data's standard deviations, averaged over dimensions.

    Attributes:
        error: (H,) root mean square error of the model 1, 2, ... H steps ahead.
        floor: (H,) that of the recorded observations once tokenised: no model on these tokens does better.
        still: (H,) that of predicting that nothing moves.
        starts: how many places in the data were predicted from.
    """

    error: np.ndarray
    floor: np.ndarray
    still: np.ndarray
    starts: int


def open_loop_errors(
    model: TrajectoryTransformer,
    tokenizer: Tokenizer,
    dataset: OfflineDataset,
    *,
    horizon: int = 50,
    context: int = 5,
    starts: int = 64,
    episodes: np.ndarray | None = None,
    seed: int = 0,
) -> OpenLoopErrors:
    """Replay recorded actions in the model and compare what it foresees with what was recorded.

    From each start the model reads `context` transitions and the present observation, then of every step only the
    action; observations and rewards are its own likeliest ones, fed back (Janner, Li, Levine 2021, figure 2). At the
    end of the trained window it goes on from the newest half, as the planner does.

    Args:
        model, tokenizer: of a checkpoint (`trajplan.training.checkpoint.load_model_folder`).
        dataset: recorded episodes.
        horizon: H, steps to look ahead.
        context: transitions before the start.
        starts: how many starts, drawn without repetition.
        episodes: numbers of the episodes to start in, such as the held-out ones; None: all.
        seed: of the draw.

    Raises:
        ConfigError: when the context does not fit the trained window, or a count is below 1.
        DataError: when no episode is long enough.
    """
    if not 0 <= context < model.config.window or horizon < 1 or starts < 1:
        raise ConfigError(
            f"context ({context}) must be 0 to {model.config.window - 1}, the model's window less one; "
            f"horizon ({horizon}) and starts ({starts}) must be 1 or more."
        )
    rows, episode = _draw_starts(dataset, horizon, context, starts, episodes, seed)
    steps = np.arange(-context, horizon + 1)
    # Row r of an episode's transitions is row r + episode of its observations, one more each.
    recorded = np.asarray(dataset.observations[(rows + episode)[:, None] + steps], np.float32)
    actions = np.asarray(dataset.actions[rows[:, None] + steps[:-1]], np.float32)
    rewards = dataset.rewards_with_penalty(None)[rows[:, None] + steps[:context]]
    predicted = predict(model, tokenizer, recorded[:, : context + 1], actions, rewards, CachedDecoder(model))

    truth, present = recorded[:, context + 1 :], recorded[:, context, None]
    dims = slice(0, model.config.observation_dim)
    tokenised = tokenizer.decode(tokenizer.encode(torch.from_numpy(truth).to(model.device), dims), dims)
    deviation = np.asarray(dataset.statistics().std)
    deviation = np.where(deviation > 0, deviation, 1.0)

    def error(guess: np.ndarray) -> np.ndarray:
        return np.sqrt((((guess - truth) / deviation) ** 2).mean(axis=(0, 2)))

    return OpenLoopErrors(error(predicted), error(tokenised.cpu().numpy()), error(present), len(rows))


@torch.inference_mode()
def predict(
    model: TrajectoryTransformer,
    tokenizer: Tokenizer,
    observations: np.ndarray,
    actions: np.ndarray,
    rewards: np.ndarray,
    decoder: Decoder,
) -> np.ndarray:
    """The likeliest observations under given actions.

    Args:
        model, tokenizer: of one checkpoint.
        observations: (B, C + 1, S) float32, C past ones and the present one.
        actions: (B, C + H, A) float32, past and future.
        rewards: (B, C) float32, past.
        decoder: of the model.

    Returns:
        (B, H, S) float32, 1 to H steps ahead.
    """
    S, A, J = model.config.observation_dim, model.config.action_dim, model.config.transition_dim
    B, C = rewards.shape
    H = actions.shape[1] - C
    seen = tokenizer.encode(torch.from_numpy(observations).to(model.device), slice(0, S))
    given = tokenizer.encode(torch.from_numpy(actions).to(model.device), slice(S, S + A))
    earned = tokenizer.encode(torch.from_numpy(rewards[..., None]).to(model.device), slice(S + A, S + A + 1))
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
        if in_window == model.config.window:
            in_window = model.config.window // 2
            logits = decoder.restart(tokens[:, None, step + 1 - in_window : step + 1].flatten(2))
        else:
            logits = decoder.advance(tokens[:, step, J - 1, None])
        in_window += 1
        for dim in range(S):
            tokens[:, step + 1, dim] = _likeliest(logits)
            logits = decoder.advance(tokens[:, step + 1, dim, None])
    return tokenizer.decode(tokens[:, C + 1 :, :S], slice(0, S)).cpu().numpy()


def _likeliest(logits: Tensor) -> Tensor:
    """Tokens (B,) of logits (B, 1, V + 1), an episode's end left out: the recording went on."""
    return logits[:, 0, :-1].argmax(-1)


def _draw_starts(
    dataset: OfflineDataset, horizon: int, context: int, count: int, episodes: np.ndarray | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Transition rows of the starts and the episodes they lie in, both (B,) int64."""
    numbers = np.arange(dataset.num_episodes) if episodes is None else np.asarray(episodes)
    room = np.maximum(np.diff(dataset.offsets)[numbers] - context - horizon + 1, 0)
    if room.sum() == 0:
        raise DataError(
            f"dataset {dataset.id} has no episode of {context + horizon} steps to replay; ask for a shorter horizon."
        )
    ends = np.cumsum(room)
    total = int(ends[-1])
    chosen = np.sort(np.random.default_rng(seed).choice(total, min(count, total), replace=False))
    which = np.searchsorted(ends, chosen, side="right")
    rows = dataset.offsets[numbers[which]] + context + chosen - (ends - room)[which]
    return rows, numbers[which]
