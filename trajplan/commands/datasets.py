"""`trajplan datasets`: list, show, collect and import datasets."""

import argparse
import json
import sys

from trajplan.commands.collect import add_collect_arguments, run_collect


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-commands of `trajplan datasets`."""
    parser.epilog = (
        "Datasets are kept in MINARI_DATASETS_PATH (default ~/.minari/datasets); the form that training reads is in "
        "TRAJPLAN_CACHE (default ~/.cache/trajplan), which may be deleted at any time."
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    summary = "list the datasets on this machine, or those that can be downloaded"
    listing = actions.add_parser("list", help=summary, description=_sentence(summary))
    listing.add_argument("--remote", action="store_true", help="list the datasets of Minari's server (MINARI_REMOTE)")
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(action_run=_list)

    summary = "show what a dataset holds, in numbers and as a picture"
    show = actions.add_parser("show", help=summary, description=_sentence(summary))
    show.add_argument(
        "id", metavar="ID", help="Minari id, e.g. mujoco/hopper/medium-v0; downloaded if not on this machine"
    )
    show.add_argument("--picture", metavar="FILE", help="also draw a one-page picture to FILE (.png, .pdf or .svg)")
    show.add_argument("--json", action="store_true", help="print JSON")
    show.set_defaults(action_run=_show)

    summary = "collect a dataset from an environment with a policy"
    collect = actions.add_parser("collect", help=summary, description=_sentence(summary))
    add_collect_arguments(collect)
    collect.set_defaults(action_run=run_collect)

    summary = "import a D4RL HDF5 file as a Minari dataset"
    importing = actions.add_parser("import", help=summary, description=_sentence(summary))
    importing.add_argument("file", metavar="FILE", help="HDF5 file with observations, actions, rewards, terminals")
    importing.add_argument("--id", required=True, metavar="ID", help="new Minari id, e.g. d4rl/hopper/medium-v2")
    importing.add_argument("--env", metavar="ENV", help="Gymnasium environment to evaluate in, e.g. Hopper-v5")
    importing.add_argument(
        "--reference-scores",
        type=float,
        nargs=2,
        metavar=("MIN", "MAX"),
        help="returns that normalised scores 0 and 100 stand for (default: D4RL's, by the name of file or environment)",
    )
    importing.add_argument(
        "--time-limit",
        type=int,
        metavar="N",
        help="for files without timeouts: the number of steps after which episodes were cut",
    )
    importing.add_argument(
        "--cut-jumps",
        action="store_true",
        help="for files without next_observations: end an episode, as at a timeout, where the observation jumps",
    )
    importing.set_defaults(action_run=_import)


def run(args: argparse.Namespace) -> int | None:
    """Run the chosen sub-command."""
    return args.action_run(args)


def _sentence(summary: str) -> str:
    return summary[0].upper() + summary[1:] + "."


def _list(args: argparse.Namespace) -> None:
    from trajplan.data.minari_files import dataset_root
    from trajplan.data.sources.minari import list_datasets

    rows, problems = list_datasets(args.remote)
    if args.json:
        print(json.dumps(rows, indent=2))
    elif not rows:
        print(f"No datasets in {dataset_root()} (MINARI_DATASETS_PATH names another folder).")
    else:
        width = max(len(row["id"]) for row in rows)
        print(f"{'id':<{width}}  {'episodes':>9}  {'transitions':>12}  {'MB':>9}  environment")
        for row in rows:
            sizes = f"{row['num_episodes']:>9,}  {row['num_transitions']:>12,}  {row['megabytes']:>9,.1f}"
            print(f"{row['id']:<{width}}  {sizes}  {row['environment'] or '-'}")
    for problem in problems:
        print(f"trajplan: {problem}", file=sys.stderr)


def _show(args: argparse.Namespace) -> None:
    from trajplan.data.dataset import OfflineDataset
    from trajplan.data.summary import describe_in_full, summarize

    if args.picture:
        from trajplan.data.picture import check_picture_path, save_picture

        check_picture_path(args.picture)
    dataset = OfflineDataset.from_minari(args.id)
    summary = summarize(dataset)
    if args.picture:
        save_picture(dataset, args.picture)
    print(json.dumps(summary, indent=2) if args.json else describe_in_full(dataset, summary))
    if args.picture and not args.json:
        print(f"\n  picture in {args.picture}")


def _import(args: argparse.Namespace) -> None:
    from trajplan.data.dataset import OfflineDataset
    from trajplan.data.minari_files import check_new_id
    from trajplan.data.scores import ReferenceScores
    from trajplan.data.sources.d4rl import read_d4rl

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
