"""`trajplan evaluate`: run a checkpoint in its environment, and write down what came of it."""

import argparse
import contextlib
import dataclasses
import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trajplan.config import add_arguments as add_config_arguments
from trajplan.config import given, require, to_dict
from trajplan.errors import ConfigError
from trajplan.planners.config import BeamSearchConfig

if TYPE_CHECKING:
    import gymnasium

    from trajplan.data.info import DatasetInfo
    from trajplan.data.scores import ReferenceScores
    from trajplan.evaluation.trace import Trace
    from trajplan.evaluation.video import VideoRecorder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "checkpoint", metavar="DIR", help="checkpoint folder, or a model's name on the Hugging Face hub"
    )
    parser.add_argument("--episodes", type=int, default=10, help="episodes to run (default: 10)")
    parser.add_argument("--num-envs", type=int, default=10, help="environments planned for at once (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="episode n is seeded with this + n (default: 0)")
    parser.add_argument("--env", metavar="ID", help="Gymnasium environment (default: the dataset's)")
    parser.add_argument("--max-episode-steps", type=int, metavar="N", help="time limit (default: the environment's)")
    parser.add_argument("--reference-min", type=float, metavar="RETURN", help="the return that scores 0")
    parser.add_argument("--reference-max", type=float, metavar="RETURN", help="the return that scores 100")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where results go (default: the checkpoint folder)")
    parser.add_argument("--resume", action="store_true", help="keep the finished episodes of an interrupted run")
    parser.add_argument("--video", action="store_true", help="film the first episodes; point mazes need no OpenGL")
    parser.add_argument("--video-episodes", type=int, default=3, metavar="N", help="how many to film (default: 3)")
    parser.add_argument("--picture", action="store_true", help="draw plans of the first episode that is run: plan.png")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    add_config_arguments(parser, BeamSearchConfig, "planner settings instead of the checkpoint's own")


def run(args: argparse.Namespace) -> int:
    """Evaluate; returns 0, or 130 when interrupted."""
    from trajplan.card import write_card
    from trajplan.evaluation.environments import (
        check_environment,
        check_rendering,
        check_time_limit,
        environment_maker,
        print_warnings,
        quiet_simulators,
        reference_scores,
    )
    from trajplan.evaluation.maze import is_point_maze
    from trajplan.evaluation.report import EvaluationFile, format_table
    from trajplan.evaluation.rollout import evaluate
    from trajplan.evaluation.trace import Trace
    from trajplan.evaluation.video import VideoRecorder
    from trajplan.hub import checkpoint_folder, load_policy

    # Before anything is loaded; the rollout checks its own.
    for name in ("max_episode_steps", "video_episodes"):
        value = getattr(args, name)
        require(value is None or value >= 1, "--" + name.replace("_", "-"), value, "be at least 1")
    folder = checkpoint_folder(args.checkpoint)
    output = _output_folder(args)
    planner = _planner(args, folder)
    policy = load_policy(folder, device=args.device, planner=planner)
    info = policy.info
    reference = reference_scores(info, args.env, args.reference_min, args.reference_max)
    with quiet_simulators() as warnings:
        limit: dict[str, Any] = {"max_episode_steps": args.max_episode_steps}
        make_env = environment_maker(info, args.env, **limit)
        with contextlib.closing(make_env()) as env:
            check_environment(env, info)
            check_time_limit(env)
            if args.video and not is_point_maze(env, info):
                make_env = environment_maker(info, args.env, render_mode="rgb_array", **limit)
                check_rendering(make_env)
            file = EvaluationFile(
                output / "evaluation.json", _settings(args, folder, policy.info, planner, env, reference), reference
            )
        finished = file.resume() if args.resume else []
        video = VideoRecorder(policy, output / "videos", args.video_episodes) if args.video else None
        missing = set(range(args.episodes)) - {episode.episode for episode in finished}
        trace = Trace(policy, min(missing)) if args.picture and missing else None
        try:
            rollouts = evaluate(
                policy,
                make_env,
                episodes=args.episodes,
                num_envs=args.num_envs,
                seed=args.seed,
                finished=finished,
                on_episode=file.add,
                observers=[observer for observer in (video, trace) if observer is not None],
                progress=True,
            )
        except KeyboardInterrupt:
            done = f"{len(file.episodes)} of {args.episodes} episodes are finished"
            print(f"trajplan: interrupted; {done}: the same command with --resume continues.", file=sys.stderr)
            return 130
        finally:
            if video is not None:
                video.close()
    print(format_table(file.finish(rollouts)))
    print_warnings(warnings)
    print(f"written           {file.path}")
    _write_pictures(info, video, trace, output)
    if output.resolve() == folder.resolve():
        write_card(output)
    return 0


def _output_folder(args: argparse.Namespace) -> Path:
    from trajplan.training.files import make_folder

    output = args.output or Path(args.checkpoint)
    if args.output is None and not output.is_dir():
        raise ConfigError(f"{args.checkpoint} is not a folder here; for a model from the hub give --output DIR.")
    make_folder(output)
    return output


def _planner(args: argparse.Namespace, folder: Path) -> BeamSearchConfig | None:
    from trajplan.hub import is_baseline
    from trajplan.training.resume import saved_planner

    if is_baseline(folder):
        flags = [*given(args, BeamSearchConfig), *(["picture"] if args.picture else [])]
        if flags:
            names = ", ".join("--" + name.replace("_", "-") for name in flags)
            raise ConfigError(f"{args.checkpoint} is a baseline, which does not plan: leave out {names}.")
        return None
    return dataclasses.replace(saved_planner(folder), **given(args, BeamSearchConfig))


def _settings(
    args: argparse.Namespace,
    folder: Path,
    info: "DatasetInfo",
    planner: BeamSearchConfig | None,
    env: "gymnasium.Env",
    reference: "ReferenceScores | None",
) -> dict[str, Any]:
    """What is known before the first episode, for `evaluation.json`."""
    from trajplan.evaluation.report import evaluation_versions

    spec = env.spec
    score = float(reference.normalize(info.mean_return)) if reference else None
    kwargs = {name: value for name, value in spec.kwargs.items() if name != "render_mode"} if spec else {}
    return {
        "seed": args.seed,
        "num_episodes": args.episodes,
        "num_envs": args.num_envs,
        "environment": spec and {"id": spec.id, "kwargs": kwargs, "max_episode_steps": spec.max_episode_steps},
        "dataset": {
            "id": info.id,
            "num_episodes": info.num_episodes,
            "mean_return": info.mean_return,
            "mean_normalized_score": score,
        },
        "model_sha256": _sha256(folder / "model.safetensors"),
        "planner": planner and to_dict(planner),
        "versions": evaluation_versions(),
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_pictures(info: "DatasetInfo", video: "VideoRecorder | None", trace: "Trace | None", output: Path) -> None:
    if video is not None:
        print(f"videos            {', '.join(map(str, video.written)) or 'none: those episodes were finished before'}")
    if trace is None:
        return
    from trajplan.evaluation.plan_picture import save_plan_picture

    save_plan_picture(trace, info, output / "plan.png")
    print(f"picture           {output / 'plan.png'}")
