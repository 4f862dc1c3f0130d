"""The options of `trajplan compare`."""

import argparse
from pathlib import Path

from trajplan.comparison.settings import EvaluationConfig
from trajplan.config import add_arguments as add_config_arguments

EPILOG = """\
The same command resumes after an interruption, and adds methods, seeds or episodes to what is there. Each cell, a
method with a seed, is one command, listed by --dry-run: any machine that shares the output folder may run it, under
accelerate launch where a Trajectory Transformer is to train on several GPUs; each is to be started once. When all are
done the command itself, or with --report, writes comparison.csv and report.html."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `trajplan compare`."""
    parser.epilog = EPILOG
    parser.add_argument(
        "--dataset",
        metavar="ID",
        required=True,
        nargs="+",
        action="extend",
        help="Minari id of the dataset; several of one environment train as one",
    )
    parser.add_argument(
        "--methods",
        required=True,
        metavar="NAMES",
        help="methods to compare, comma-separated: those of `trajplan baseline`, tt for the Trajectory "
        "Transformer, and dynamics for planning on an ensemble; LABEL=NAME for one that is compared twice: "
        "bc,bc10=bc,iql,tt",
    )
    parser.add_argument("--output", metavar="DIR", required=True, type=Path, help="folder of the comparison")
    parser.add_argument(
        "--seeds",
        type=int,
        default=3,
        metavar="N",
        help="training runs of each method; 95 %% intervals need 5 (default: 3)",
    )
    parser.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="METHOD.NAME=VALUE",
        help="settings other than the preset's, such as bc.updates=5000 tt.epochs=1 tt.planner.horizon=5; "
        "baselines.updates=5000 is for all baselines, tt.preset names its preset, tt.planner its planner, as "
        "dynamics.planner does",
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="cells worked on at a time (default: 1)")
    parser.add_argument(
        "--seeds-together",
        choices=("auto", "yes", "no"),
        default="auto",
        help="whether one process trains the seeds of a method as one batched computation, where the method can; each "
        "is what it would be alone (auto: on a GPU, where it is faster)",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), help="where (default: a GPU if there is one)")
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        nargs="?",
        const="local",
        help="work on a Ray cluster whose nodes share the output folder (without an address: Ray on this machine)",
    )
    parser.add_argument(
        "--cpus-per-cell", type=float, default=1, metavar="N", help="with --ray: CPUs of a cell (default: 1)"
    )
    parser.add_argument(
        "--gpus-per-cell",
        type=float,
        metavar="N",
        help="with --ray: GPUs of a cell, such as 0.5 where two share one (default: 1 if the cluster has any)",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="print the commands of the unfinished cells, and stop")
    what.add_argument("--report", action="store_true", help="train and evaluate nothing: report what is finished")
    what.add_argument("--cell", metavar="LABEL/SEED", help="work on this cell only, without a report")
    add_config_arguments(parser, EvaluationConfig, "evaluation")
