"""Seconds per plan of the cached planner and of one that recomputes the whole sequence for every token.

Both run in this process, one after the other, on the paper's model (4 layers, 4 heads, width 128, window 10) with
random weights, from a context of 5 transitions; both must return the same plan.
"""

import argparse
import resource
import statistics
import time

import numpy as np
import torch
from record import write

from trajplan.models.recomputing_decoder import RecomputingDecoder
from trajplan.models.trajectory_transformer import TrajectoryTransformer, TrajectoryTransformerConfig
from trajplan.planners.beam_search import BeamSearch, BeamSearchConfig
from trajplan.tokenizers.fit import fit_tokenizer

PROBLEMS = {
    "halfcheetah": (17, 6, BeamSearchConfig(horizon=5, beam_width=32)),
    "hopper": (11, 3, BeamSearchConfig(horizon=15, beam_width=128)),
}


def build(observation_dim: int, action_dim: int, device: str) -> tuple:
    torch.manual_seed(0)
    config = TrajectoryTransformerConfig(observation_dim=observation_dim, action_dim=action_dim)
    data = np.random.default_rng(0).normal(size=(5000, config.transition_dim)).astype(np.float32)
    return TrajectoryTransformer(config).eval().to(device), fit_tokenizer("quantile", data, config.bins)


def measure(search: BeamSearch, batch: int, repeats: int) -> tuple[list[float], torch.Tensor]:
    shape = search.model.config
    generator = torch.Generator().manual_seed(0)
    past = torch.randn(batch, 5, shape.transition_dim - 1, generator=generator)
    observations = torch.randn(batch, shape.observation_dim, generator=generator)
    seconds = []
    for _ in range(repeats):
        noise = [torch.Generator().manual_seed(row) for row in range(batch)]
        start = time.perf_counter()
        _, plans = search.plan(observations, past, noise)
        scores = plans.scores.cpu()
        seconds.append(time.perf_counter() - start)
    return seconds, scores


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5, help="plans of the cached planner, after one warm-up")
    parser.add_argument("--batch", type=int, default=1, help="environments planned for at once by the cached planner")
    parser.add_argument("--plain", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--output", help="write the numbers to this JSON file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results: dict = {"device": args.device, "threads": args.threads, "batch": args.batch, "problems": {}}
    for name in args.problems:
        observation_dim, action_dim, config = PROBLEMS[name]
        model, tokenizer = build(observation_dim, action_dim, args.device)
        before = peak_megabytes()
        cached, scores = measure(BeamSearch(model, tokenizer, config), args.batch, args.repeats + 1)
        row = {
            "cached_seconds": statistics.median(cached[1:]),
            "plans_per_second": args.batch / statistics.median(cached[1:]),
            "cached_peak_megabytes_above_model": peak_megabytes() - before,
        }
        if args.plain:
            (plain,), plain_scores = measure(BeamSearch(model, tokenizer, config, RecomputingDecoder), args.batch, 1)
            torch.testing.assert_close(plain_scores, scores, atol=1e-3, rtol=1e-3)
            row |= {"plain_seconds": plain, "ratio": plain / row["cached_seconds"]}
        results["problems"][name] = row
        print(name, " ".join(f"{key} {value:.3g}" for key, value in row.items()), flush=True)
    if args.output:
        write(args.output, results)


if __name__ == "__main__":
    main()
