"""Write a dataset's transitions as arrays that any implementation reads.

python benchmarks/beside/export_arrays.py bench/hopper/medium-replay-v0 hopper.npz
"""

import argparse

import numpy as np
import torch

from trajplan import OfflineDataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="Minari id")
    parser.add_argument("output", help="npz file")
    args = parser.parse_args()
    dataset = OfflineDataset.from_minari(args.dataset)
    transitions = dataset.transitions()
    batch = transitions.gather(torch.arange(len(transitions)))
    np.savez(
        args.output,
        observations=batch.observations.numpy(),
        actions=batch.actions.numpy(),
        rewards=batch.rewards.numpy(),
        next_observations=batch.next_observations.numpy(),
        terminations=np.array(dataset.terminations),
        truncations=np.array(dataset.truncations),
    )


if __name__ == "__main__":
    main()
