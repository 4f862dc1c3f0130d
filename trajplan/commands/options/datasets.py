"""The options of `trajplan datasets`."""

import argparse

from trajplan.commands.options.datasets_collect import add_collect_arguments


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

    summary = "show what a dataset holds, in numbers and as a picture"
    show = actions.add_parser("show", help=summary, description=_sentence(summary))
    show.add_argument(
        "id", metavar="ID", help="Minari id, e.g. mujoco/hopper/medium-v0; downloaded if not on this machine"
    )
    show.add_argument("--picture", metavar="FILE", help="also draw a one-page picture to FILE (.png, .pdf or .svg)")
    show.add_argument("--json", action="store_true", help="print JSON")

    summary = "collect a dataset from an environment with a policy"
    collect = actions.add_parser("collect", help=summary, description=_sentence(summary))
    add_collect_arguments(collect)

    summary = "import a file of D4RL (.hdf5) or of OGBench (.npz) as a Minari dataset"
    importing = actions.add_parser("import", help=summary, description=_sentence(summary))
    importing.add_argument(
        "file",
        metavar="FILE",
        help="HDF5 file with observations, actions, rewards, terminals; or NAME.npz of OGBench, where a NAME-val.npz "
        "beside it is imported as well: its episodes are those that training measures the held-out loss on",
    )
    importing.add_argument(
        "--id",
        metavar="ID",
        help="new Minari id, e.g. d4rl/hopper/medium-v2 (default for OGBench's files: ogbench/NAME)",
    )
    importing.add_argument(
        "--env",
        metavar="ENV",
        help="Gymnasium environment to evaluate in, e.g. Hopper-v5 (default for OGBench's files: by their name)",
    )
    importing.add_argument(
        "--task",
        type=int,
        metavar="K",
        help="for OGBench's files: rewards and ends of its single task K, -1 and at the goal 0, in place of none",
    )
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

    summary = "copy a goal environment's dataset without the goal in its observations"
    goals = actions.add_parser("goals", help=summary, description=_sentence(summary))
    goals.add_argument("dataset", metavar="DATASET", help="Minari id of observations with achieved_goal, desired_goal")
    goals.add_argument("--id", required=True, metavar="ID", help="new Minari id, e.g. mine/pointmaze-goals-v0")
    goals.epilog = (
        "Models and policies of the copy are told the goal at reset, as those of OGBench's data are; its goals are "
        "what achieved_goal is to become."
    )


def _sentence(summary: str) -> str:
    return summary[0].upper() + summary[1:] + "."
