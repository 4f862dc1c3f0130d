"""`trajplan baseline`: train one of the methods that the Trajectory Transformer is compared with."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from trajplan.baselines.registry import METHODS
from trajplan.baselines.settings import RunConfig
from trajplan.commands.run_arguments import add_run_arguments, datasets_of_run
from trajplan.config import add_arguments as add_config_arguments
from trajplan.config import given
from trajplan.parser import Parser


class MethodParser(Parser):
    """The options of one method, added only when it is the chosen one: its file is not imported for the others."""

    method: str | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Add the options, and parse."""
        if self.method is not None:
            method, self.method = self.method, None
            _add_options(self, method)
        return super().parse_known_args(args, namespace)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `trajplan baseline`."""
    parser.epilog = "trajplan baseline METHOD --help lists the settings of a method."
    methods = parser.add_subparsers(dest="method", metavar="METHOD", required=True, parser_class=MethodParser)
    for name, entry in METHODS.items():
        methods.add_parser(name, help=entry.summary, description=f"{entry.summary}.").method = name


def _add_options(parser: argparse.ArgumentParser, method: str) -> None:
    add_run_arguments(parser)
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    note = "where published settings differ by environment, those are taken"
    add_config_arguments(parser, METHODS[method].config_class(), f"settings of the method ({note})")
    add_config_arguments(parser, RunConfig, f"settings of the run ({note})")


def run(args: argparse.Namespace) -> int:
    """Run `trajplan baseline`; 130 if it was interrupted."""
    from trajplan.baselines.checkpoint import saved_settings
    from trajplan.baselines.presets import preset_for
    from trajplan.baselines.trainer import train
    from trajplan.card import write_card
    from trajplan.data.dataset import OfflineDataset
    from trajplan.devices import choose_device
    from trajplan.evaluation.during_training import evaluation_for

    choose_device(args.device)
    output: Path = args.output
    ids, continued = datasets_of_run(args)
    dataset = OfflineDataset.from_minari(ids)
    # Refused here already, before the preset is looked at.
    METHODS[args.method].method_class(dataset.info)
    settings, run_config = preset_for(args.method, dataset.info)
    if continued:
        before, saved, run_config = saved_settings(output)
        settings = saved if before == args.method else settings
    settings = replace(settings, **given(args, type(settings)))
    run_config = replace(run_config, **given(args, RunConfig))
    if args.resume and not continued:
        print(f"{output} holds no run yet: starting from the beginning.")
    evaluate = evaluation_for(dataset, settings, run_config) if run_config.eval_every else None
    result = train(
        dataset,
        output,
        args.method,
        settings,
        run_config,
        resume=args.resume,
        evaluate=evaluate,
        device=args.device,
    )
    if result.interrupted:
        print(
            f"Stopped after {result.updates} updates, saved. Resume with: "
            f"trajplan baseline {args.method} --resume --output {output}",
            file=sys.stderr,
        )
        return 130
    write_card(output)
    print(f"Trained for {result.updates} updates: {output}")
    return 0
