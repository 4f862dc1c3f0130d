"""`trajplan train`: pretraining on one dataset."""

import argparse
import os
import sys
from pathlib import Path

from trajplan.commands.run_arguments import add_run_arguments, datasets_of_run
from trajplan.config import add_arguments as add_config_arguments
from trajplan.config import given
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
    parser.add_argument(
        "--preset",
        metavar="NAME",
        help="settings to start from, which the flags below override: auto (by number of transitions, device, "
        "environment and kind of data), "
        f"{', '.join(_preset_names())} (default: auto)",
    )
    parser.add_argument(
        "--context",
        type=int,
        metavar="N",
        help="past transitions that its planner is conditioned on, below the window (default: the preset's)",
    )
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    add_config_arguments(parser, TrainConfig, "settings (the preset's go before the defaults shown)")


def run(args: argparse.Namespace) -> int:
    """Run `trajplan train`; 130 if it was interrupted."""
    from trajplan.pretraining import train

    output: Path = args.output
    ids, _ = datasets_of_run(args)
    settings = given(args, TrainConfig)
    how = {"context": args.context, "resume": args.resume, "device": args.device}
    result = train(ids, output, args.preset, **how, **settings)
    if os.environ.get("RANK", "0") != "0":
        return 130 if result.interrupted else 0
    if result.interrupted:
        print(
            f"Stopped after {result.updates} updates, saved. Resume with: trajplan train --resume --output {output}",
            file=sys.stderr,
        )
        return 130
    print(f"{result}\n{output}")
    return 0


def _preset_names() -> list[str]:
    from trajplan.presets import PRESETS

    return list(PRESETS)
