"""A trained controller in a loop of your own, and what its plans hold.

    python examples/own_loop.py own_data/model

The loop is Gymnasium's: reset, act, step. Only one thing is added: the controller is told what its last action earned.
"""

import argparse

import numpy as np

import trajplan


def main(argv: list[str] | None = None) -> None:
    """Run one episode and print what was planned on the way."""
    parser = argparse.ArgumentParser(description="Run one episode of a trained controller.")
    parser.add_argument("checkpoint", help='a folder, or "user/name" on the Hugging Face hub')
    parser.add_argument("--seed", type=int, default=0, help="of environment and planner (default: 0)")
    parser.add_argument("--steps", type=int, default=200, help="at most so many (default: 200)")
    args = parser.parse_args(argv)

    controller = trajplan.load(args.checkpoint)
    env = controller.info.make_env()
    observation, _ = env.reset(seed=args.seed)
    controller.reset(seed=args.seed)
    earned, reward = 0.0, None
    for step in range(args.steps):
        action = controller.act(observation, reward)
        if step % 20 == 0:
            print(f"step {step}: {describe(controller.plan)}")
        observation, reward, terminated, truncated, _ = env.step(action)
        earned += float(reward)
        if terminated or truncated:
            break
    print(f"{step + 1} steps, return {earned:.1f}")


def describe(plan: "trajplan.planners.controller.Plan | None") -> str:
    """One line on a plan: K beams of H transitions, best first; None for a policy that does not plan."""
    if plan is None:
        return "no plan: this policy is a baseline"
    beams, horizon, _ = plan.actions.shape
    first = np.unique(plan.actions[:, 0], axis=0)
    return (
        f"{beams} beams of {horizon} steps, {len(first)} different first actions; the best promises rewards of "
        f"{plan.rewards[0].sum():.2f} and a return of {plan.scores[0]:.1f} in all"
    )


if __name__ == "__main__":
    main()
