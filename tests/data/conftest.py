import warnings

import minari
import numpy as np
import pytest
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer


def _episode(rng, length, observation_width=3, action_width=2, end="timeout"):
    flags = {"terminations": np.zeros(length, np.bool_), "truncations": np.zeros(length, np.bool_)}
    flags["terminations"][-1] = end in ("terminal", "both")
    flags["truncations"][-1] = end in ("timeout", "both")
    return {
        "observations": rng.normal(size=(length + 1, observation_width)).astype(np.float32),
        "actions": rng.uniform(-1, 1, size=(length, action_width)).astype(np.float32),
        "rewards": rng.normal(size=length).astype(np.float32),
        **flags,
    }


@pytest.fixture
def make_episode():
    """`make_episode(rng, length, end=...)`: one random episode as a dictionary of arrays."""
    return _episode


@pytest.fixture
def episodes():
    """Episodes of 5, 1, 12 and 3 steps that end in a terminal, a timeout, both, and neither."""
    rng = np.random.default_rng(0)
    ends = [(5, "terminal"), (1, "timeout"), (12, "both"), (3, "neither")]
    return [_episode(rng, length, end=end) for length, end in ends]


@pytest.fixture
def data_root(tmp_path, monkeypatch):
    """An empty Minari root and an empty cache; returns both folders."""
    root, cache = tmp_path / "minari", tmp_path / "cache"
    root.mkdir()
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    monkeypatch.setenv("TRAJPLAN_CACHE", str(cache))
    return root, cache


@pytest.fixture
def write_minari(data_root):
    """`write_minari(id, episodes, **options)`: a Minari dataset of episodes as dictionaries; unbounded Box spaces."""

    def write(id, episodes, **options):
        first = episodes[0]
        options.setdefault("env", None)
        if options["env"] is None:
            for name in ("observation", "action"):
                width = np.asarray(first[name + "s"]).shape[1:] if not isinstance(first[name + "s"], dict) else ()
                options.setdefault(name + "_space", spaces.Box(-np.inf, np.inf, width, np.float32))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            minari.create_dataset_from_buffers(id, [EpisodeBuffer(**episode) for episode in episodes], **options)
        return data_root[0] / id

    return write
