import numpy as np
import pytest
from gymnasium import spaces
from matplotlib.image import imread

from trajplan.data.dataset import OfflineDataset
from trajplan.data.picture import check_picture_path, save_picture
from trajplan.data.scores import ReferenceScores
from trajplan.errors import ConfigError


def test_a_page_with_something_in_every_row(episodes, tmp_path):
    dataset = OfflineDataset.from_episodes(episodes, reference=ReferenceScores(0.0, 9.0, "test"))
    save_picture(dataset, tmp_path / "page.png")
    page = imread(tmp_path / "page.png")[..., :3]
    assert page.shape[0] > page.shape[1] > 1000
    # No empty band higher than a fifth of the page.
    blank = (page == 1.0).all(axis=(1, 2))
    edges = np.flatnonzero(np.diff(np.concatenate([[0], blank, [0]])))
    assert max(np.diff(edges)[::2], default=0) < len(page) / 5


def test_wide_and_odd_data(tmp_path, make_episode):
    """Many dimensions, a constant one, discrete actions, equal returns, a single episode: nothing is assumed away."""
    wide = make_episode(np.random.default_rng(0), 30, observation_width=120, action_width=40)
    wide["observations"][:, 3] = 1e6
    wide["rewards"][:] = 0.0
    save_picture(OfflineDataset.from_episodes([wide]), tmp_path / "wide.png")
    discrete = {**wide, "actions": np.zeros(30, np.int64)}
    dataset = OfflineDataset.from_episodes([discrete, discrete], action_space=spaces.Discrete(4))
    save_picture(dataset, tmp_path / "discrete.pdf")
    assert (tmp_path / "wide.png").stat().st_size > 10_000
    assert (tmp_path / "discrete.pdf").read_bytes().startswith(b"%PDF")


def test_paths_are_checked_before_the_work(tmp_path):
    with pytest.raises(ConfigError, match=r"\.png"):
        check_picture_path(tmp_path / "page.gif")
    with pytest.raises(ConfigError, match="does not exist"):
        check_picture_path(tmp_path / "nowhere" / "page.png")
    check_picture_path(tmp_path / "page.PNG")
