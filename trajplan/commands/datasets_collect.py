"""`trajplan datasets collect`: run a policy in an environment and keep what happens as a Minari dataset."""

import argparse

from trajplan.data.collection.collect import collect_dataset
from trajplan.data.scores import ReferenceScores
from trajplan.evaluation.environments import print_warnings, quiet_simulators


def run(args: argparse.Namespace) -> None:
    """Collect and say where the data are and what to do next."""
    reference = None
    if args.reference_scores is not None:
        low, high = args.reference_scores
        reference = ReferenceScores(low, high, source="--reference-scores")
    with quiet_simulators() as warnings:
        folder = collect_dataset(
            args.env,
            args.id,
            episodes=args.episodes,
            steps=args.steps,
            policy=args.policy,
            noise=args.noise,
            noise_correlation=args.noise_correlation,
            seed=args.seed,
            max_episode_steps=args.max_episode_steps,
            action_repeat=args.action_repeat,
            env_kwargs=args.env_kwargs,
            reference=reference,
            description=args.description,
            progress=True,
        )
    print_warnings(warnings)
    print(f"Collected {args.id} in {folder}; look at it with: trajplan datasets show {args.id}")
