"""`trajplan datasets goals`: a goal environment's dataset for policies that are told the goal at reset."""

import argparse

from trajplan.data.dataset import OfflineDataset
from trajplan.data.goals_apart import DESIRED, goals_apart
from trajplan.data.minari_files import check_new_id


def run(args: argparse.Namespace) -> None:
    """Write the new dataset."""
    check_new_id(args.id)
    dataset = goals_apart(OfflineDataset.from_minari(args.dataset))
    dataset.save(args.id, description=f"{args.dataset} without {DESIRED} in its observations.")
    columns = ", ".join(map(str, dataset.info.goal_columns or ()))
    print(
        f"Saved {dataset.num_transitions:,} transitions in {dataset.num_episodes:,} episodes as {args.id}: "
        f"{dataset.observation_dim} dimensions are observed, of which a goal fixes {columns}."
    )
    print(f"Look at it with: trajplan datasets show {args.id}")
