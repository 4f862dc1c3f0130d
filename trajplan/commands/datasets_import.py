"""`trajplan datasets import`: a file of D4RL or OGBench becomes a Minari dataset."""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

from trajplan.data.dataset import OfflineDataset
from trajplan.data.info import DatasetInfo
from trajplan.data.minari_files import check_new_id
from trajplan.data.scores import ReferenceScores
from trajplan.data.sources.d4rl import read_d4rl
from trajplan.data.sources.ogbench import held_out_file, ogbench_id, read_ogbench
from trajplan.errors import ConfigError


def run(args: argparse.Namespace) -> None:
    """Import it, and say what was found in it."""
    if Path(args.file).suffix == ".npz":
        _import_ogbench(args)
    else:
        _import_d4rl(args)


def _import_ogbench(args: argparse.Namespace) -> None:
    flags = {"--time-limit": args.time_limit, "--cut-jumps": args.cut_jumps or None}
    flags |= {"--reference-scores": args.reference_scores}
    for flag, value in flags.items():
        if value is not None:
            raise ConfigError(f"{flag} is for D4RL's files, and {args.file} is one of OGBench's: leave it out.")
    id = args.id or ogbench_id(args.file, args.task)
    check_new_id(id)
    arrays, info = read_ogbench(args.file, id=id, env=args.env, task=args.task)
    dataset = OfflineDataset(id=id, info=info, **arrays)
    beside = held_out_file(args.file)
    folder = None
    if beside is not None:
        # NAME-v0 and NAME-val-v0.
        name, _, version = id.rpartition("-")
        check_new_id(f"{name}-val-{version}")
        arrays, of_held_out = read_ogbench(beside, id=f"{name}-val-{version}", env=args.env, task=args.task)
        held_out = OfflineDataset(id=of_held_out.id, info=of_held_out, **arrays)
        folder = held_out.save(held_out.id, description=f"Imported from OGBench's {beside.name}.")
        dataset = replace(dataset, info=replace(info, held_out=(held_out.id,)))
    try:
        dataset.save(id, description=f"Imported from OGBench's {Path(args.file).name}.")
    except BaseException:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    rewards = "rewards are 0" if args.task is None else f"rewards are those of task {args.task}"
    print(
        f"Imported {dataset.num_transitions:,} transitions in {dataset.num_episodes:,} episodes as {id}: {rewards}, "
        f"goals are {len(info.goal_columns or ())} columns of the observation, the environment is {_environment(info)}."
    )
    if beside is not None:
        print(
            f"Imported {held_out.num_transitions:,} transitions in {held_out.num_episodes:,} episodes of {beside.name} "
            f"as {held_out.id}: training on {id} measures the held-out loss on these."
        )
    print(f"Look at it with: trajplan datasets show {id}")


def _environment(info: DatasetInfo) -> str:
    assert info.env_spec is not None
    return info.env_spec.id


def _import_d4rl(args: argparse.Namespace) -> None:
    if args.id is None:
        raise ConfigError(
            "A D4RL file does not name its dataset: give a new Minari id with --id, such as mine/hopper-v0."
        )
    if args.task is not None:
        raise ConfigError("--task is for OGBench's files (.npz): leave it out.")
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
