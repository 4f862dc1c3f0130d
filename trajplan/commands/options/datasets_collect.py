"""The options of `trajplan datasets collect`."""

import argparse
import json
from typing import Any

from trajplan.errors import ConfigError

EPILOG = """\
Your own policy is a function policy(observation, rng) -> action. It takes the environment's observation, returns an
action, and draws all randomness from rng, a numpy Generator seeded for the episode. It is imported from the working
folder or an installed package. Example:

  trajplan datasets collect --env PointMaze_UMaze-v3 --id pointmaze/umaze-mixed-v0 --episodes 150 \\
      --policy waypoint --noise 0.5 2 5 --action-repeat 5
"""


def add_collect_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `trajplan datasets collect`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("--env", required=True, metavar="ENV", help="Gymnasium environment, e.g. PointMaze_UMaze-v3")
    parser.add_argument("--id", required=True, metavar="ID", help="new Minari id, e.g. pointmaze/umaze-mixed-v0")
    amount = parser.add_mutually_exclusive_group(required=True)
    amount.add_argument("--episodes", type=int, metavar="N", help="collect N episodes")
    amount.add_argument("--steps", type=int, metavar="N", help="collect whole episodes until they hold N transitions")
    parser.add_argument(
        "--policy",
        default="random",
        metavar="POLICY",
        help="random, waypoint (PointMaze: walks from goal to goal), or module:function (default: random)",
    )
    parser.add_argument(
        "--noise",
        type=float,
        nargs="+",
        default=[0.0],
        metavar="STD",
        help="std of the Gaussian noise added to actions; episodes use several values in turn (default: 0)",
    )
    parser.add_argument(
        "--noise-correlation",
        type=float,
        default=0.0,
        metavar="C",
        help="correlation between the noise of successive steps, below 1 (default: 0, independent)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="same seed, same data (default: 0)")
    parser.add_argument("--max-episode-steps", type=int, metavar="N", help="time limit (default: the environment's)")
    parser.add_argument(
        "--action-repeat",
        type=int,
        default=1,
        metavar="K",
        help="hold every action for K steps of the environment, which make one transition (default: 1)",
    )
    parser.add_argument("--env-kwargs", type=_options, default={}, metavar="JSON", help="environment options, {...}")
    parser.add_argument(
        "--reference-scores",
        type=float,
        nargs=2,
        metavar=("MIN", "MAX"),
        help="returns that normalised scores 0 and 100 stand for (default: from the bundled table, if it has them)",
    )
    parser.add_argument("--description", metavar="TEXT", help="a sentence about the data (default: one is made)")


def _options(text: str) -> dict[str, Any]:
    try:
        options = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f'--env-kwargs takes JSON such as \'{{"reward_type": "dense"}}\'; {error}.') from error
    if not isinstance(options, dict):
        raise ConfigError(f'--env-kwargs takes a JSON object such as \'{{"reward_type": "dense"}}\', not {text!r}.')
    return options
