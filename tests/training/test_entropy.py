import numpy as np
import pytest
import torch

from trajplan.data.dataset import OfflineDataset
from trajplan.training.config import TrainConfig
from trajplan.training.loop import train

# Rows: the next state's probabilities, from states 0, 1 and 2.
P = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.45, 0.5, 0.05]])
Q = np.array([0.9, 0.5, 0.2])  # probability of action 1 in each state


def test_a_small_model_reaches_the_entropy_of_a_markov_source(tmp_path):
    """States follow P whatever the actions, actions follow Q given the state, rewards are the state."""
    rng = np.random.default_rng(0)
    episodes, length = [], 20
    for _ in range(300):
        states = [rng.integers(3)]
        for _ in range(length):
            states.append(rng.choice(3, p=P[states[-1]]))
        states = np.array(states)
        actions = (rng.random(length) < Q[states[:-1]]).astype(np.float32)
        episodes.append(
            {
                "observations": states[:, None].astype(np.float32),
                "actions": actions[:, None],
                "rewards": states[:-1].astype(np.float32),
                "terminations": np.zeros(length, bool),
                "truncations": np.arange(length) == length - 1,
            }
        )
    dataset = OfflineDataset.from_episodes(episodes, id="markov")
    config = TrainConfig(
        n_layer=1, n_head=2, n_embd=32, embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0, bins=20, window=3,
        batch_size=64, updates=300, learning_rate=5e-3, held_out=0.2, eval_every=300, eval_windows=4000,
        save_every=300, log_every=100, precision="no",
    )  # fmt: skip
    result = train(dataset, tmp_path / "run", config)

    _, held_out = dataset.split(0.2, 0)
    windows = dataset.windows(3, episodes=held_out)
    rows, valid = (x.numpy() for x in windows.gather_rows(torch.arange(len(windows))))
    states, actions = dataset.observations[:, 0].astype(int), dataset.actions[:, 0]
    episode = np.searchsorted(dataset.offsets, rows, side="right") - 1
    now = states[rows + episode]
    # The cross-entropy that the true probabilities have on the same targets: no model does better but by chance.
    observation = -np.log(P[now[:, :-1], now[:, 1:]])[valid[:, 1:]].mean()
    action = -np.log(np.where(actions[rows] == 1, Q[now], 1 - Q[now]))[valid].mean()
    assert 0.7 < observation < 0.9
    assert result.metrics["held_out/observation"] == pytest.approx(observation, abs=0.015)
    assert result.metrics["held_out/action"] == pytest.approx(action, abs=0.015)
    assert result.metrics["held_out/reward"] == pytest.approx(0.0, abs=0.015)
