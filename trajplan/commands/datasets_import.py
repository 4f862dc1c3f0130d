"""`trajplan datasets import`: a D4RL HDF5 file becomes a Minari dataset."""

import argparse

from trajplan.data.dataset import OfflineDataset
from trajplan.data.minari_files import check_new_id
from trajplan.data.scores import ReferenceScores
from trajplan.data.sources.d4rl import read_d4rl


def run(args: argparse.Namespace) -> None:
    """Import it, and say what was found in it."""
    check_new_id(args.id)
    reference = None
    if args.reference_scores is not None:
        low, high = args.reference_scores
        reference = ReferenceScores(low, high, source="--reference-scores")
    arrays, info, notes = read_d4rl(
        args.file, env=args.env, reference=reference, time_limit=args.time_limit, cut_jumps=args.cut_jumps
    )
    dataset = OfflineDataset(id=info.id, info=info, **arrays)
    dataset.save(args.id, description=" ".join([f"Imported from D4RL's {info.id}.", *notes]))
    ends = {end: int(which.sum()) for end, which in dataset.episode_ends().items()}
    print(
        f"Imported {dataset.num_transitions:,} transitions in {dataset.num_episodes:,} episodes as {args.id}: "
        f"{ends['terminal']:,} end in a terminal, {ends['timeout']:,} in a timeout, {ends['both']:,} in both, "
        f"{ends['neither']:,} in neither."
    )
    for note in notes:
        print(note)
    if info.reference is None:
        print("No reference scores are known for it; give them with --reference-scores to have normalised scores.")
    if args.env is None:
        print("Without an environment its actions have no bounds, which the baselines need; name it with --env.")
    print(f"Look at it with: trajplan datasets show {args.id}")
