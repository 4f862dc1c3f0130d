"""The options of `trajplan train`."""

import argparse

from trajplan.commands.options.runs import add_run_arguments
from trajplan.config import add_arguments as add_config_arguments
from trajplan.presets import PRESETS
from trajplan.training.config import TrainConfig

EPILOG = """\
On several GPUs, or machines: accelerate launch --num_processes 8 -m trajplan train …; sharded with FSDP: accelerate
launch --num_processes 8 --use_fsdp --fsdp_version 2 --fsdp_auto_wrap_policy TRANSFORMER_BASED_WRAP -m trajplan train ….
On a CPU: ACCELERATE_USE_CPU=1 torchrun --nproc_per_node 2 -m trajplan train ….
The batch size is that of all processes together."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `trajplan train`."""
    parser.epilog = EPILOG
    add_run_arguments(parser)
    summaries = "; ".join(f"{name}: {row.summary}" for name, row in PRESETS.items())
    parser.add_argument(
        "--preset",
        metavar="NAME",
        help="settings to start from, which the flags below override (default: auto, by number of transitions, device, "
        f"environment and kind of data). {summaries}",
    )
    parser.add_argument(
        "--context",
        type=int,
        metavar="N",
        help="past transitions that its planner is conditioned on, below the window (default: the preset's)",
    )
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    add_config_arguments(parser, TrainConfig, "settings (the preset's go before the defaults shown)")
