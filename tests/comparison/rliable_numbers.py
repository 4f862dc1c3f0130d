"""Write rliable.json: what rliable makes of the scores of a few runs, for test_statistics.py to compare with.

pip install rliable==1.2.0
python tests/comparison/rliable_numbers.py tests/comparison/rliable.json
"""

import json
import sys
from importlib import import_module, metadata
from pathlib import Path

import numpy as np

REPS = 4_000
TAUS = [10.0, 50.0, 55.0, 62.5, 75.0, 95.0]


def main() -> None:
    library, metrics = import_module("rliable.library"), import_module("rliable.metrics")
    rng = np.random.default_rng(0)
    runs = {"few": (50, 12, 4), "more": (60, 5, 7), "many": (55, 20, 10)}
    # rliable's matrices are (runs, tasks); a comparison is of one dataset, one task.
    scores = {name: rng.normal(mean, std, (count, 1)).round(2) for name, (mean, std, count) in runs.items()}
    scores["more"][3] = 62.5
    scores["few"][2] = 62.5

    def aggregates(matrix: np.ndarray) -> np.ndarray:
        return np.array([metrics.aggregate_mean(matrix), metrics.aggregate_iqm(matrix)])

    for name in ("IIDBootstrap", "IndependentSamplesBootstrap"):
        _accept_random_state(getattr(import_module("arch.bootstrap"), name))
    np.random.seed(0)  # noqa: NPY002 - rliable draws from the global generator
    points, intervals = library.get_interval_estimates(scores, aggregates, reps=REPS)
    profiles, bands = library.create_performance_profile(scores, np.array(TAUS), reps=REPS)
    pairs = {"few,more": (scores["few"], scores["more"]), "more,many": (scores["more"], scores["many"])}
    chances, chance_intervals = library.get_interval_estimates(pairs, metrics.probability_of_improvement, reps=REPS)
    numbers = {
        "made_by": "python tests/comparison/rliable_numbers.py, percentile bootstrap",
        "rliable": metadata.version("rliable"),
        "reps": REPS,
        "scores": {name: matrix[:, 0].tolist() for name, matrix in scores.items()},
        "mean": {name: _estimate(points[name][0], intervals[name][:, 0]) for name in scores},
        "iqm": {name: _estimate(points[name][1], intervals[name][:, 1]) for name in scores},
        "taus": TAUS,
        "profile": {
            name: {"shares": profiles[name].tolist(), "band": bands[name].round(4).tolist()} for name in scores
        },
        "improvement": {name: _estimate(chances[name], chance_intervals[name][:, 0]) for name in pairs},
    }
    Path(sys.argv[1]).write_text(json.dumps(numbers, indent=1) + "\n")


def _accept_random_state(bootstrap: type) -> None:
    """rliable 1.2.0 passes `random_state`, which newer versions of arch call `seed`; it is not used."""
    original = bootstrap.__init__

    def init(self: object, *args: object, random_state: None = None, **keywords: object) -> None:
        original(self, *args, **keywords)

    bootstrap.__init__ = init


def _estimate(value: float, interval: np.ndarray) -> dict[str, object]:
    return {"value": float(value), "interval": [round(float(end), 4) for end in interval]}


if __name__ == "__main__":
    main()
