"""`trajplan train`: pretraining on one dataset."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from trajplan.commands.run_arguments import add_run_arguments, datasets_of_run
from trajplan.config import add_arguments as add_config_arguments
from trajplan.config import given
from trajplan.errors import CheckpointError
from trajplan.training.config import TrainConfig

EPILOG = """\
On several GPUs, or machines: accelerate launch --num_processes 8 -m trajplan train …; sharded with FSDP: accelerate
launch --num_processes 8 --use_fsdp --fsdp_version 2 --fsdp_auto_wrap_policy TRANSFORMER_BASED_WRAP -m trajplan train ….
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
    add_config_arguments(parser, TrainConfig, "settings (defaults: those of preset tt_default)")


def run(args: argparse.Namespace) -> int:
    """Run `trajplan train`; 130 if it was interrupted."""
    from accelerate import PartialState

    from trajplan.card import write_card
    from trajplan.data.dataset import OfflineDataset
    from trajplan.presets import preset_for, preset_named
    from trajplan.training.loop import train, uses_gpu
    from trajplan.training.resume import saved_config, saved_planner

    output: Path = args.output
    flags = given(args, TrainConfig)
    ids, continued = datasets_of_run(args)
    process = PartialState(cpu=not uses_gpu())
    # One process fills the dataset's cache, the others open it.
    with process.main_process_first():
        dataset = OfflineDataset.from_minari(ids)
    if continued and args.preset is None:
        config, planner = replace(saved_config(output), **flags), saved_planner(output)
        say = f"Resuming {output}, on {dataset.id}."
    else:
        automatic = args.preset in (None, "auto")
        preset = (
            preset_for(dataset.info, gpu=uses_gpu())
            if automatic
            else preset_named(args.preset, dataset.num_transitions)
        )
        config, planner = replace(preset.train, **flags), preset.planner
        say = f"Preset {preset.name}{f' ({preset.why})' if automatic else ''} on {dataset.id}."
        say += f"\n{preset.note}" if preset.note else ""
    if args.context is not None:
        if continued and args.context != planner.context:
            raise CheckpointError(
                f"{output} is a run whose planner has context {planner.context}, which --resume keeps: leave --context "
                f"out, and give trajplan evaluate --context {args.context} to plan with another."
            )
        planner = replace(planner, context=args.context)
    if process.is_main_process:
        print(say)
        if args.resume and not continued:
            print(f"{output} holds no run yet: starting from the beginning.")
    result = train(dataset, output, config, planner, resume=args.resume)
    if not process.is_main_process:
        return 130 if result.interrupted else 0
    if result.interrupted:
        print(
            f"Stopped after {result.updates} updates, saved. Resume with: trajplan train --resume --output {output}",
            file=sys.stderr,
        )
        return 130
    write_card(output)
    print(f"{result}\n{output}")
    return 0


def _preset_names() -> list[str]:
    from trajplan.presets import PRESETS

    return list(PRESETS)
