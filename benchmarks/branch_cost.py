"""What a branch of a search tree costs: going on from a kept node's cache, and encoding its tokens anew.

On the paper's model (4 layers, 4 heads, width 128) with random weights, for a batch of leaves of one environment, each
some transitions deep. The two ways take turns and must give the same logits. On a CPU, times are the processor's.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from record import write

from trajplan.models.decoder import CachedDecoder
from trajplan.models.trajectory_transformer import TrajectoryTransformer, TrajectoryTransformerConfig

PROBLEMS = {"hopper": (11, 3), "halfcheetah": (17, 6)}
DEPTHS = (1, 5, 10)
# So that the deepest leaf can still grow by a transition.
WINDOW = 12


def milliseconds(call: Callable[[], torch.Tensor], device: str) -> float:
    if device == "cpu":
        # What else the machine does then counts as little as it can.
        start = time.process_time()
        call()
        return 1000 * (time.process_time() - start)
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start)


@torch.inference_mode()
def measure(name: str, depth: int, leaves: int, repeats: int, device: str) -> dict[str, float]:
    torch.manual_seed(0)
    observation_dim, action_dim = PROBLEMS[name]
    config = TrajectoryTransformerConfig(observation_dim=observation_dim, action_dim=action_dim, window=WINDOW)
    decoder = CachedDecoder(TrajectoryTransformer(config).eval().to(device))
    J = config.transition_dim
    tokens = torch.randint(config.bins, (1, leaves, depth * J + observation_dim), device=device)
    # The root is the present observation; every leaf has a path of its own from there.
    tokens[:, :, :observation_dim] = tokens[:, :1, :observation_dim]
    decoder.begin(tokens[:, 0, :observation_dim], leaves, 1)
    decoder.keep()
    for start in range(observation_dim, tokens.shape[2], J):
        for at in range(start, start + J):
            decoder.advance(tokens[..., at])
        nodes = decoder.keep()
    calls = {
        "resume": lambda: decoder.resume(nodes),
        "restart": lambda: decoder.restart(tokens),
        "keep": decoder.keep,
        "token": lambda: decoder.advance(tokens[..., 0]),
    }
    torch.testing.assert_close(calls["resume"](), calls["restart"](), atol=1e-4, rtol=1e-3)
    spent: dict[str, list[float]] = {call: [] for call in calls}
    for _ in range(repeats):
        spent["restart"].append(milliseconds(calls["restart"], device))
        spent["resume"].append(milliseconds(calls["resume"], device))
        # A transition from there, and what its nodes cost to keep.
        spent["token"].append(statistics.mean(milliseconds(calls["token"], device) for _ in range(J)))
        spent["keep"].append(milliseconds(calls["keep"], device))
    numbers = {f"{call}_milliseconds": statistics.median(values) for call, values in spent.items()}
    node = J * 2 * config.n_layer * config.n_embd * 4
    return numbers | {
        "restart_over_resume": numbers["restart_milliseconds"] / numbers["resume_milliseconds"],
        "node_kilobytes": node / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--leaves", type=int, nargs="+", default=[1, 32], help="leaves in a batch")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--output", help="write the numbers to this JSON file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for name in PROBLEMS:
        for leaves in args.leaves:
            for depth in DEPTHS:
                numbers = measure(name, depth, leaves, args.repeats, args.device)
                rows.append({"problem": name, "leaves": leaves, "depth": depth, **numbers})
                print(name, leaves, depth, " ".join(f"{key} {value:.3g}" for key, value in numbers.items()), flush=True)
    if args.output:
        write(args.output, {"device": args.device, "threads": args.threads, "rows": rows})


if __name__ == "__main__":
    main()
