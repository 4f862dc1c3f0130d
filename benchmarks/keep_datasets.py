"""Keep what the benchmarks' datasets are: transitions, episodes and the mean return of the behaviour in them."""

import argparse
from pathlib import Path

from record import write

from trajplan.data.dataset import OfflineDataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("datasets", nargs="+", metavar="ID", help="Minari datasets")
    parser.add_argument("--output", type=Path, required=True, help="JSON file")
    args = parser.parse_args()
    kept = {}
    for name in args.datasets:
        info = OfflineDataset.from_minari(name).info
        score = info.reference and round(float(info.reference.normalize(info.mean_return)), 2)
        kept[name] = {
            "transitions": info.num_transitions,
            "episodes": info.num_episodes,
            "mean_return": round(info.mean_return, 2),
            "normalized_score": score,
        }
    write(args.output, {"datasets": kept})


if __name__ == "__main__":
    main()
