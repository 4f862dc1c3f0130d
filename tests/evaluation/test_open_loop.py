import numpy as np
import pytest
import torch

from trajplan.data.dataset import OfflineDataset
from trajplan.errors import ConfigError, DataError
from trajplan.evaluation.open_loop import _draw_starts, open_loop_errors, predict
from trajplan.models.decoder import CachedDecoder
from trajplan.models.recomputing_decoder import RecomputingDecoder
from trajplan.models.trajectory_transformer import TrajectoryTransformer, TrajectoryTransformerConfig
from trajplan.tokenizers.fit import fit_tokenizer

LENGTHS = (9, 4, 30, 17)


@pytest.fixture(scope="module")
def dataset():
    """The first observation dimension counts steps, the second is noise."""
    rng = np.random.default_rng(0)
    episodes = [
        {
            "observations": np.stack([100 * number + np.arange(T + 1), rng.normal(size=T + 1)], 1).astype(np.float32),
            "actions": rng.normal(size=(T, 1)).astype(np.float32),
            "rewards": rng.normal(size=T),
            "terminations": np.arange(T) == T - 1,
            "truncations": np.zeros(T, bool),
        }
        for number, T in enumerate(LENGTHS)
    ]
    return OfflineDataset.from_episodes(episodes, id="test/counting-v0")


@pytest.fixture(scope="module")
def parts(dataset):
    tokenizer = fit_tokenizer("quantile", np.asarray(dataset.joined()), 10)
    torch.manual_seed(0)
    config = TrajectoryTransformerConfig(
        observation_dim=2,
        action_dim=1,
        bins=10,
        window=6,
        n_layer=2,
        n_head=2,
        n_embd=16,
        bin_counts=tokenizer.sizes.tolist(),
    )
    model = TrajectoryTransformer(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # far from uniform, so that the likeliest token is clear
            parameter.mul_(5.0)
    return model, tokenizer


def test_starts_lie_inside_their_episodes(dataset):
    rows, episode = _draw_starts(dataset, horizon=5, context=3, count=1000, episodes=None, seed=0)
    expected = [
        (int(dataset.offsets[number]) + t, number)
        for number, T in enumerate(LENGTHS)
        for t in range(T + 1)
        if t >= 3 and t + 5 <= T
    ]
    assert list(zip(rows.tolist(), episode.tolist(), strict=True)) == expected
    rows, episode = _draw_starts(dataset, horizon=5, context=3, count=7, episodes=np.array([3, 0]), seed=1)
    assert len(set(rows.tolist())) == 7
    assert set(episode.tolist()) <= {0, 3}
    with pytest.raises(DataError, match="no episode of 40 steps"):
        _draw_starts(dataset, horizon=38, context=2, count=1, episodes=None, seed=0)


def test_predictions_are_those_of_the_whole_sequence_recomputed(dataset, parts):
    model, tokenizer = parts
    rng = np.random.default_rng(1)
    observations = rng.normal((50, 0), size=(4, 3, 2)).astype(np.float32)
    actions = rng.normal(size=(4, 5, 1)).astype(np.float32)
    rewards = rng.normal(size=(4, 2)).astype(np.float32)
    found = predict(model, tokenizer, observations, actions, rewards, CachedDecoder(model))
    # By hand: 2 past transitions and 3 steps ahead fill the window of 6 but for its last actions.
    for row in range(4):
        tokens = []
        for step in range(5):
            if step < 3:
                tokens += tokenizer.encode(torch.tensor(observations[row, step]), slice(0, 2)).tolist()
            else:
                for _ in range(2):
                    tokens.append(int(model(torch.tensor([tokens])).logits[0, -1, :-1].argmax()))
                guess = tokenizer.decode(torch.tensor(tokens[-2:]), slice(0, 2)).numpy()
                assert found[row, step - 3] == pytest.approx(guess)
            tokens += tokenizer.encode(torch.tensor(actions[row, step]), slice(2, 3)).tolist()
            if step < 2:
                tokens += tokenizer.encode(torch.tensor(rewards[row, step, None]), slice(3, 4)).tolist()
            else:
                tokens.append(int(model(torch.tensor([tokens])).logits[0, -1, :-1].argmax()))
            tokens.append(7)  # any return-to-go: it is never read
    assert len(np.unique(found)) > 3


def test_both_decoders_agree_far_beyond_the_window(dataset, parts):
    model, tokenizer = parts
    rng = np.random.default_rng(2)
    observations = rng.normal(size=(3, 3, 2)).astype(np.float32)
    actions, rewards = rng.normal(size=(3, 22, 1)).astype(np.float32), rng.normal(size=(3, 2)).astype(np.float32)
    cached = predict(model, tokenizer, observations, actions, rewards, CachedDecoder(model))
    plain = predict(model, tokenizer, observations, actions, rewards, RecomputingDecoder(model))
    assert cached.shape == (3, 20, 2)
    assert np.array_equal(cached, plain)


def test_errors_are_in_standard_deviations(dataset, parts):
    found = open_loop_errors(*parts, dataset, horizon=10, context=2, starts=50, seed=3)
    deviation = dataset.statistics().deviation
    assert found.starts == (30 - 11) + (17 - 11)
    # Nothing moves: the counting dimension is off by h after h steps, which shows that rows are read in line.
    rows, episode = _draw_starts(dataset, 10, 2, 50, None, 3)
    for ahead in (1, 4, 10):
        noise = dataset.observations[rows + episode + ahead, 1] - dataset.observations[rows + episode, 1]
        expected = np.sqrt((np.mean((noise / deviation[1]) ** 2) + (ahead / deviation[0]) ** 2) / 2)
        assert found.still[ahead - 1] == pytest.approx(expected, rel=1e-5)
    assert (found.floor <= found.error + 1e-9).all()
    assert found.floor.max() < 0.5


def test_impossible_settings_are_refused(dataset, parts):
    with pytest.raises(ConfigError, match=r"context \(6\) must be 0 to 5"):
        open_loop_errors(*parts, dataset, context=6)
    with pytest.raises(ConfigError, match="1 or more"):
        open_loop_errors(*parts, dataset, horizon=0)
