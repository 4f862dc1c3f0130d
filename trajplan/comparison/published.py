"""Scores that the literature reports on D4RL's v2 datasets: other data, sizes and simulator versions than Minari's.

They stand beside our own numbers for orientation and are no reference to reach.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trajplan.comparison.settings import TRANSFORMER
from trajplan.data.kinds import dataset_name, environment_name
from trajplan.planners.registry import DEFAULT

if TYPE_CHECKING:
    from trajplan.data.info import DatasetInfo


@dataclass(frozen=True)
class Row:
    """Normalised scores of several methods on one D4RL dataset, from one publication.

    Attributes:
        source: who reports them, and how.
        dataset: D4RL's name without the version.
        scores: by the method as the source names it.
    """

    source: str
    dataset: str
    scores: dict[str, float]


# What the sources call our methods; DT and MBOP have no counterpart here.
NAMES = {
    "BC": "bc", "BC-10 %": "bc", "CQL": "cql", "IQL": "iql", "AWAC": "awac", "MOPO": "mopo", "COMBO": "combo",
    "TT": TRANSFORMER,
}  # fmt: skip
BEST_TENTH = "BC-10 %"
# The setting, and its value, that takes away what a method adds to another; what is left is not what was published.
SWITCHED_OFF = {"mopo": ("penalty_weight", 0), "combo": ("beta", 0), "cql": ("alpha", 0)}

_PAPER = "Janner, Li, Levine 2021, table 1 (TT: mean of 15 runs; the others as quoted there)"
_FREE = "CORL (Tarasov et al. 2022), last checkpoint, mean of 4 seeds"
_KIT = "OfflineRL-Kit (Sun 2023), mean of 4 seeds"

_TABLES: list[tuple[str, tuple[str, ...], dict[str, tuple[float, ...]]]] = [
    (
        _PAPER,
        ("BC", "MBOP", "CQL", "DT", "TT"),
        {
            "halfcheetah-medium-expert": (59.9, 105.9, 91.6, 86.8, 95.0),
            "hopper-medium-expert": (79.6, 55.1, 105.4, 107.6, 110.0),
            "walker2d-medium-expert": (36.6, 70.2, 108.8, 108.1, 101.9),
            "halfcheetah-medium": (43.1, 44.6, 44.0, 42.6, 46.9),
            "hopper-medium": (63.9, 48.8, 58.5, 67.6, 61.1),
            "walker2d-medium": (77.3, 41.0, 72.5, 74.0, 79.0),
            "halfcheetah-medium-replay": (4.3, 42.3, 45.5, 36.6, 41.9),
            "hopper-medium-replay": (27.6, 12.4, 95.0, 82.7, 91.5),
            "walker2d-medium-replay": (36.9, 9.7, 77.2, 66.6, 82.6),
        },
    ),
    (
        _FREE,
        ("BC", BEST_TENTH, "AWAC", "CQL", "IQL"),
        {
            "halfcheetah-medium": (42.4, 42.5, 49.5, 47.0, 48.3),
            "hopper-medium": (53.5, 55.5, 74.5, 59.1, 67.5),
            "walker2d-medium": (63.2, 67.3, 66.5, 80.8, 80.9),
            "halfcheetah-medium-replay": (35.7, 23.6, 44.7, 45.0, 44.5),
            "hopper-medium-replay": (29.8, 70.4, 96.4, 95.1, 97.4),
            "walker2d-medium-replay": (21.8, 54.4, 82.2, 73.1, 82.2),
            "halfcheetah-medium-expert": (56.0, 90.1, 93.6, 95.6, 94.7),
            "hopper-medium-expert": (52.3, 111.2, 52.7, 99.3, 107.4),
            "walker2d-medium-expert": (99.0, 108.7, 49.4, 109.6, 111.7),
            "antmaze-umaze": (55, 66, 58, 93, 77),
            "antmaze-medium-play": (0, 2, 0, 66, 66),
            "antmaze-large-play": (0, 0, 0, 21, 42),
            "door-human": (2.3, -0.1, 4.6, 5.5, 3.3),
        },
    ),
    (
        _KIT,
        ("CQL", "IQL", "MOPO", "COMBO"),
        {
            "halfcheetah-medium": (49.4, 47.4, 72.4, 71.9),
            "hopper-medium": (59.1, 65.7, 62.8, 84.7),
            "walker2d-medium": (83.6, 81.1, 84.1, 83.9),
            "halfcheetah-medium-replay": (47.0, 44.2, 72.1, 66.5),
            "hopper-medium-replay": (98.6, 94.8, 92.7, 90.1),
            "walker2d-medium-replay": (71.3, 77.3, 85.9, 89.4),
            "halfcheetah-medium-expert": (93.0, 88.0, 83.6, 98.2),
            "hopper-medium-expert": (111.4, 106.2, 74.6, 108.8),
            "walker2d-medium-expert": (109.8, 108.3, 108.2, 110.0),
        },
    ),
]

ENVIRONMENTS = ("antmaze", "hopper", "halfcheetah", "walker2d", "door")
KINDS = ("medium-replay", "medium-expert", "medium-play", "large-play", "human", "medium", "umaze")


def d4rl_name(info: "DatasetInfo") -> str | None:
    """The D4RL dataset, such as `hopper-medium-replay`, that a dataset resembles by its environment and name, or None.

    The same words are looked for as D4RL's names consist of; what else a name says (diverse, expert) has no row.
    """
    environment, name = environment_name(info), dataset_name(info)
    body = next((body for body in ENVIRONMENTS if body in environment), None)
    kind = next((kind for kind in KINDS if kind in name), None)
    if body is None or kind is None or "diverse" in name:
        return None
    found = f"{body}-{kind}"
    return found if published(found) else None


def published(dataset: str) -> list[Row]:
    """All published rows of a D4RL dataset."""
    return [
        Row(source, dataset, dict(zip(methods, table[dataset], strict=True)))
        for source, methods, table in _TABLES
        if dataset in table
    ]


def published_scores(dataset: str | None, method: str, settings: Mapping[str, Any]) -> list[float]:
    """The published scores of one of our methods on a D4RL dataset, one for each source that has it.

    Args:
        dataset: from `d4rl_name`.
        method: its name in the registry, or `tt`.
        settings: the resolved ones; of those that make it another method only `SWITCHED_OFF` and `top_fraction`, the
            share of the episodes that it learned from, are looked at: a tenth makes BC the published BC-10 %.
    """
    rows = published(dataset) if dataset else []
    names = {name for name, ours in NAMES.items() if ours == method and name != BEST_TENTH}
    best = settings.get("top_fraction", 1.0)
    if best != 1.0:
        names = {BEST_TENTH} if method == "bc" and best == 0.1 else set()
    if settings.get("planner.type", DEFAULT) != DEFAULT:
        return []  # what is published of the Trajectory Transformer is of its beam search
    if method in SWITCHED_OFF:
        name, off = SWITCHED_OFF[method]
        names = set() if settings.get(name) == off else names
    return [score for row in rows for name, score in row.scores.items() if name in names]
