"""`trajplan.evaluate`: run a checkpoint, or any policy, in its environment; the command of that name calls it too."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trajplan.card import write_card
from trajplan.config import require
from trajplan.errors import ConfigError
from trajplan.evaluation.environments import (
    check_environment,
    check_time_limit,
    environment_maker,
    print_warnings,
    quiet_simulators,
    reference_scores,
    tasks_of,
)
from trajplan.evaluation.pictures.maze import is_point_maze
from trajplan.evaluation.pictures.plan_picture import save_plan_picture
from trajplan.evaluation.pictures.rendering import check_rendering
from trajplan.evaluation.pictures.trace import Trace
from trajplan.evaluation.pictures.video import VideoRecorder, check_encoder
from trajplan.evaluation.pictures.viewer import ViewerTrace, save_viewer
from trajplan.evaluation.policy import Controller, Policy
from trajplan.evaluation.report import EvaluationFile, evaluation_versions
from trajplan.evaluation.result import Evaluation
from trajplan.evaluation.rollout import evaluate as roll_out
from trajplan.files import make_folder, refuse_file, sha256
from trajplan.hub import checkpoint_folder, load_policy
from trajplan.planners.controller import PlanningPolicy
from trajplan.planners.settings import aid_files, aids_of, describe_planner, save_planner

if TYPE_CHECKING:
    import gymnasium

    from trajplan.data.info import DatasetInfo
    from trajplan.data.scores import ReferenceScores


class EvaluationInterrupted(KeyboardInterrupt):
    """Ctrl-C during an evaluation; its message says how many episodes are finished."""


def evaluate(
    path_or_policy: str | Path | Controller | Policy,
    *,
    episodes: int = 10,
    num_envs: int = 10,
    seed: int = 0,
    tasks: Sequence[int] | None = None,
    env: str | None = None,
    max_episode_steps: int | None = None,
    reference_min: float | None = None,
    reference_max: float | None = None,
    output: str | Path | None = None,
    resume: bool = False,
    video: bool = False,
    video_episodes: int = 3,
    picture: bool = False,
    viewer: bool = False,
    device: str | None = None,
    planner: Any = None,
    keep_planner: bool = False,
    revision: str | None = None,
    progress: bool = True,
) -> Evaluation:
    """Run episodes of a trained controller in its environment.

    Episode n is reset with `seed` + n, environment and policy both, so that what happens in it depends neither on
    `num_envs` nor on the other episodes. What the simulator warns of is said once, on standard error.

    Args:
        path_or_policy: a checkpoint folder, "user/name" on the hub, what `trajplan.load` gives, or any policy as
            `trajplan.evaluation.policy.Policy` describes it.
        episodes: how many; in an environment of several tasks (OGBench's), how many of each.
        num_envs: environments acted in at once; changes the speed only.
        seed: of episode 0.
        tasks: numbers of the environment's tasks to run; None: all that it has. They take turns: of K tasks, episode n
            is of the (n mod K)-th.
        env: a registered Gymnasium id; None: the dataset's environment.
        max_episode_steps: a time limit; None: the environment's.
        reference_min, reference_max: the returns that score 0 and 100; None: the dataset's, or the bundled table's.
        output: folder for evaluation.json, rewritten after every episode, pictures and videos; None: nothing is
            written.
        resume: keep the finished episodes of an interrupted evaluation in `output`.
        video: film the first `video_episodes` episodes into `output`.
        video_episodes: how many to film.
        picture: draw plans of the first episode that is run into `output`.
        viewer: write viewer.html into `output`, a page to walk through all plans of that episode.
        device: where a checkpoint acts; None: a GPU if there is one.
        planner: settings of a planner for the checkpoint; None: its own.
        keep_planner: make it the checkpoint's own, with copies of the critic and the ensemble that it names.
        revision: a branch, tag or commit on the hub; None: the newest.
        progress: whether to show a bar on standard error.

    Raises:
        CheckpointError: if there is no such checkpoint, or it is incomplete or damaged, or `output` cannot be written.
        ConfigError: for values out of range or that do not go together, or an environment that does not fit.
        DataError: if the environment is not installed, or gives numbers that are not finite.
        EvaluationInterrupted: on Ctrl-C.
    """
    counts = {"episodes": episodes, "num_envs": num_envs, "video_episodes": video_episodes}
    for name, value in (counts | {"max_episode_steps": max_episode_steps}).items():
        require(value is None or value >= 1, name, value, "be at least 1")
    require(0 <= seed < 2**63 - episodes, "seed", seed, "be 0 or more, and with the episodes fit into 63 bits")
    target = _target(output, {"resume": resume, "video": video, "picture": picture, "viewer": viewer})
    folder, policy = _policy(path_or_policy, device, planner, revision)
    _check_folder(folder, resume=resume, keep_planner=keep_planner)
    _check_plans(policy, {"picture": picture, "viewer": viewer, "keep_planner": keep_planner})
    info = policy.info
    reference = reference_scores(info, env, reference_min, reference_max)
    with quiet_simulators() as warnings:
        limit: dict[str, Any] = {"max_episode_steps": max_episode_steps}
        make_env = environment_maker(info, env, **limit)
        with contextlib.closing(make_env()) as made:
            check_environment(made, info)
            check_time_limit(made)
            if video:
                check_encoder()
            if video and not is_point_maze(made, info):
                make_env = environment_maker(info, env, render_mode="rgb_array", **limit)
                check_rendering(make_env)
            chosen = tasks_of(made, tasks)
            total = episodes * len(chosen or (1,))
            if keep_planner:
                policy = _keep_planner(folder, policy, device)
            settings: dict[str, Any] = {"seed": seed, "num_episodes": total, "num_envs": num_envs}
            settings |= {} if chosen is None else {"tasks": chosen}
            settings |= _about(folder, policy, made, reference)
        if target is not None:
            make_folder(target)
        file = EvaluationFile(target and target / "evaluation.json", settings, reference)
        finished = file.resume() if resume else []
        missing = set(range(total)) - {episode.episode for episode in finished}
        recorder = VideoRecorder(policy, target / "videos", video_episodes) if target and video else None
        kinds = [*([Trace] if picture else []), *([ViewerTrace] if viewer else [])]
        traces = [kind(policy, min(missing)) for kind in kinds] if missing else []
        try:
            rollouts = roll_out(
                policy,
                make_env,
                episodes=total,
                num_envs=num_envs,
                seed=seed,
                tasks=chosen,
                finished=finished,
                on_episode=file.add,
                observers=[*([recorder] if recorder else []), *traces],
                progress=progress,
            )
        except KeyboardInterrupt:
            raise EvaluationInterrupted(f"{len(file.episodes)} of {total} episodes are finished") from None
        finally:
            if recorder is not None:
                recorder.close()
    report = file.finish(rollouts)
    print_warnings(warnings | (dict.fromkeys(recorder.notes, 1) if recorder else {}))
    drawn = _draw(traces, info, target) if target else {}
    if folder is not None and target is not None and target.resolve() == folder.resolve():
        write_card(folder)
    return Evaluation(report, file.path, recorder.written if recorder else [], **drawn)


def _target(output: str | Path | None, wants: Mapping[str, bool]) -> Path | None:
    """Where results go; options that want a folder are refused without one."""
    if output is not None:
        target = Path(output).expanduser()
        refuse_file(target)
        return target
    wanted = [name for name, on in wants.items() if on]
    if wanted:
        raise ConfigError(f"{wanted[0]} needs a folder: give output.")
    return None


def _policy(
    path_or_policy: str | Path | Controller | Policy,
    device: str | None,
    planner: Any,
    revision: str | None,
) -> tuple[Path | None, Policy]:
    """The checkpoint's folder, where it is one, and what acts."""
    if isinstance(path_or_policy, str | Path):
        folder = checkpoint_folder(path_or_policy, revision)
        return folder, load_policy(folder, device=device, planner=planner)
    for name, value in {"device": device, "planner": planner, "revision": revision}.items():
        if value is not None:
            raise ConfigError(f"{name} is for a checkpoint that is loaded here: give it to trajplan.load instead.")
    policy = path_or_policy.release() if isinstance(path_or_policy, Controller) else path_or_policy
    lacking = [name for name in ("info", "reset", "act") if not hasattr(policy, name)]
    if lacking:
        raise ConfigError(
            f"A policy has info, reset and act, and {type(policy).__name__} has no {', '.join(lacking)}: give a "
            "checkpoint folder, a name on the hub, or what trajplan.load returns."
        )
    return None, policy


def _keep_planner(folder: Path | None, policy: Policy, device: str | None) -> Policy:
    """Make a policy's planner its checkpoint's own; gives the policy that the checkpoint then holds."""
    assert folder is not None
    assert isinstance(policy, PlanningPolicy)
    save_planner(folder, policy.config)
    return load_policy(folder, device=device)


def _about(
    folder: Path | None, policy: Policy, env: "gymnasium.Env", reference: "ReferenceScores | None"
) -> dict[str, Any]:
    """What is known of policy and environment before the first episode, for evaluation.json."""
    info, spec = policy.info, env.spec
    kwargs = {name: value for name, value in spec.kwargs.items() if name != "render_mode"} if spec else {}
    places = aids_of(getattr(policy, "config", None))
    aids = {name: sha256(place / aid_files(name, place)[-1]) for name, place in places.items()}
    return {
        "environment": spec and {"id": spec.id, "kwargs": kwargs, "max_episode_steps": spec.max_episode_steps},
        "dataset": {
            "id": info.id,
            "num_episodes": info.num_episodes,
            "mean_return": info.mean_return,
            "mean_normalized_score": float(reference.normalize(info.mean_return)) if reference else None,
        },
        "model_sha256": folder and sha256(folder / "model.safetensors"),
        "planner": describe_planner(policy.config, folder) if isinstance(policy, PlanningPolicy) else None,
        **({"aids": aids} if aids else {}),
        "versions": evaluation_versions(),
    }


def _check_folder(folder: Path | None, *, resume: bool, keep_planner: bool) -> None:
    if folder is None and resume:
        raise ConfigError("Only the evaluation of a checkpoint folder can be resumed: give its path, not a policy.")
    if folder is None and keep_planner:
        raise ConfigError("keep_planner writes into a checkpoint folder: give its path, not a policy.")


def _check_plans(policy: Policy, wants: Mapping[str, bool]) -> None:
    for name, wanted in wants.items():
        if wanted and not hasattr(policy, "last_plans"):
            raise ConfigError(f"{type(policy).__name__} makes no plans: leave out {name}.")


def _draw(traces: list[Trace], info: "DatasetInfo", output: Path) -> dict[str, Path]:
    """Write what traces are for; gives the files as `Evaluation` names them."""
    drawn = {}
    for trace in traces:
        if isinstance(trace, ViewerTrace):
            drawn["viewer"] = output / "viewer.html"
            save_viewer(trace, info, drawn["viewer"])
        else:
            drawn["picture"] = output / "plan.png"
            save_plan_picture(trace, info, drawn["picture"])
    return drawn
