"""A one-page picture of a dataset."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from trajplan.data.dataset import OfflineDataset
from trajplan.data.summary import action_names, observation_names
from trajplan.errors import ConfigError

_SAMPLE = 200_000
_BLUE, _ORANGE, _GREEN = "#3a6ea5", "#d1742f", "#4f8f5b"


def check_picture_path(path: str | Path) -> None:
    """Refuse a file name that no picture can be saved under, before the work is done."""
    path = Path(path)
    if path.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise ConfigError(f"A picture's file name ends in .png, .pdf or .svg, not {path.name!r}.")
    if not path.parent.is_dir():
        raise ConfigError(f"The folder {path.parent} for the picture does not exist.")


def save_picture(dataset: OfflineDataset, path: str | Path) -> None:
    """Draw returns, lengths, rewards, the distribution of every dimension and the best episode to an image file.

    Args:
        dataset: what to draw; of more than 200,000 transitions an even sample stands for all in the distributions.
        path: the file, its kind by its ending (.png, .pdf, .svg).
    """
    with matplotlib.rc_context({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(11.0, 13.0), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(_title(dataset), fontsize=12)
        pages: Any = figure.subfigures(4, 1, height_ratios=[2.3, 2.6, 2.2, 4.2])
        top, middle, actions, bottom = pages
        _draw_histograms(top, dataset)
        names = observation_names(dataset.info)
        _draw_ranges(middle, "observations", _sample(dataset.observations), names, _BLUE)
        if dataset.info.is_discrete:
            _draw_counts(actions, dataset)
        else:
            _draw_ranges(actions, "actions", _sample(dataset.actions), action_names(dataset.info), _ORANGE)
        _draw_episode(bottom, dataset, names)
        figure.savefig(path, dpi=130)


def _title(dataset: OfflineDataset) -> str:
    spec = dataset.info.env_spec
    environment = f"  ({spec.id})" if spec else ""
    return f"{dataset.id}{environment}\n{dataset.num_episodes:,} episodes, {dataset.num_transitions:,} transitions"


def _sample(array: np.ndarray) -> np.ndarray:
    return np.asarray(array[:: max(1, len(array) // _SAMPLE)])


def _draw_histograms(figure: Any, dataset: OfflineDataset) -> None:
    axes = figure.subplots(1, 3)
    returns, lengths = dataset.returns, dataset.lengths
    axes[0].hist(returns, bins=_bins(returns), color=_GREEN)
    axes[0].axvline(returns.mean(), color="black", linewidth=1)
    axes[0].set(xlabel=f"return, mean {returns.mean():.4g} ± {returns.std():.4g}", ylabel="episodes")
    scores = dataset.info.normalized_score(returns)
    reference = dataset.info.reference
    if scores is not None and reference is not None:
        low, span = reference.min, reference.max - reference.min
        top = axes[0].secondary_xaxis("top", (lambda x: 100 * (x - low) / span, lambda s: low + s * span / 100))
        top.set_xlabel(f"normalised score, mean {scores.mean():.1f}")
    groups = [(name, which) for name, which in dataset.episode_ends().items() if which.any()]
    labels = [f"{name} {chosen.sum():,}" for name, chosen in groups]
    axes[1].hist([lengths[chosen] for _, chosen in groups], bins=_bins(lengths), stacked=True, label=labels)
    axes[1].set(xlabel=f"episode length, mean {lengths.mean():.4g}", ylabel="episodes")
    axes[1].legend(title="ends in", frameon=False, fontsize=7)
    rewards = _sample(dataset.rewards)
    axes[2].hist(rewards, bins=_bins(rewards), color=_GREEN)
    axes[2].set(xlabel=f"reward, {100 * np.mean(rewards == 0):.1f} % are 0", ylabel="transitions")


def _bins(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, 1 + int(np.clip(2 * len(values) ** 0.5, 10, 50)))


def _draw_ranges(figure: Any, what: str, values: np.ndarray, names: list[str], color: str) -> None:
    axes: Axes = figure.subplots()
    low, tenth, median, ninetieth, high = np.percentile(values, [0, 10, 50, 90, 100], axis=0)
    place = np.arange(len(names))
    axes.vlines(place, low, high, color=color, linewidth=1)
    axes.vlines(place, tenth, ninetieth, color=color, linewidth=min(8.0, 200.0 / len(names)), alpha=0.6)
    axes.plot(place, median, "_", color="black", markersize=6)
    reach = np.maximum(np.abs(low), np.abs(high))
    usual = max(float(np.median(reach)), 1e-6)
    # A dimension that reaches far would flatten the others on a linear axis.
    if reach.max() > 20 * usual:
        axes.set_yscale("symlog", linthresh=usual, linscale=2)
    axes.set(ylabel=what, xlim=(-0.7, len(names) - 0.3))
    axes.set_title(f"{what}: line = range, bar = 10 to 90 %, dash = median", fontsize=8, loc="left")
    step = max(1, -(-len(names) // 60))
    crowded = max(map(len, names)) * len(names) > 120
    labels = names[::step]
    axes.set_xticks(place[::step], labels, rotation=90 if crowded and max(map(len, names)) > 2 else 0, fontsize=7)
    axes.grid(axis="y", color="#dddddd", linewidth=0.5)


def _draw_counts(figure: Any, dataset: OfflineDataset) -> None:
    axes: Axes = figure.subplots()
    count = int(dataset.info.num_actions or 0)
    taken = np.bincount(np.asarray(dataset.actions[:, 0], dtype=np.int64), minlength=count)
    axes.bar(np.arange(count), taken / taken.sum(), color=_ORANGE)
    axes.set(ylabel="share of transitions", xlabel="action")


def _draw_episode(figure: Any, dataset: OfflineDataset, names: list[str]) -> None:
    best = int(np.argmax(dataset.returns))
    begin, end = int(dataset.offsets[best]), int(dataset.offsets[best + 1])
    observations = np.asarray(dataset.observations[begin + best : end + best + 1])
    statistics = dataset.statistics()
    standardized = (observations - statistics.mean) / statistics.std
    actions, rewards = np.asarray(dataset.actions[begin:end]), np.asarray(dataset.rewards[begin:end], np.float64)
    title = f"episode {best}, the best: return {dataset.returns[best]:.5g} in {end - begin} steps"
    figure.suptitle(title, fontsize=9, x=0.01, ha="left")
    heights = [max(1.0, min(3.0, len(names) / 10)), max(0.7, min(2.0, actions.shape[1] / 10)), 0.8]
    axes = figure.subplots(3, 1, sharex=True, gridspec_kw={"height_ratios": heights})
    steps = end - begin
    style: dict[str, Any] = {"aspect": "auto", "interpolation": "nearest"}
    extent = (0, steps + 1, len(names), 0)
    image = axes[0].imshow(standardized.T, cmap="RdBu_r", vmin=-3, vmax=3, extent=extent, **style)
    axes[0].set(ylabel="observation")
    figure.colorbar(image, ax=axes[0], label="standard deviations", pad=0.01)
    bound = max(float(np.abs(actions).max()), 1e-6)
    extent = (0, steps, actions.shape[1], 0)
    image = axes[1].imshow(actions.T, cmap="PuOr", vmin=-bound, vmax=bound, extent=extent, **style)
    axes[1].set(ylabel="action")
    figure.colorbar(image, ax=axes[1], pad=0.01)
    axes[2].plot(np.arange(steps) + 0.5, rewards, color=_GREEN, linewidth=0.8)
    axes[2].set_xlabel("step")
    axes[2].set_ylabel("reward", color=_GREEN)
    axes[2].margins(x=0)
    total = axes[2].twinx()
    total.plot(np.arange(steps) + 0.5, np.cumsum(rewards), color="black", linewidth=1)
    total.set_ylabel("return so far")
