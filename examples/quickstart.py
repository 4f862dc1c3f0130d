"""From nothing to a planning Trajectory Transformer in minutes on two cores: collect, train, plan, compare, report.

    python examples/quickstart.py --output quickstart

The steps are `trajplan` commands, printed as they run; they can be typed by hand as well. Each leaves its result in the
output folder and takes up what is there: after Ctrl-C the same command goes on where it stopped.
"""

import argparse
import json
import os
import shlex
import time
from dataclasses import dataclass
from pathlib import Path

from quickstart_report import write_report

from trajplan.cli import main as trajplan

ENV = "PointMaze_UMaze-v3"
DATASET = "pointmaze/umaze-mixed-v0"
NOISE = (0.5, 2.0, 5.0)  # one walker in three qualities, an equal share of episodes each
REPEAT = 5  # simulator steps an action: at 0.05 s a decision a short plan crosses half of the maze
EPISODES = 900
PRESET = "tt_quickstart"
CLONING_UPDATES = 3000
SEED = 1_000_000  # of the first evaluation episode


@dataclass(frozen=True)
class Step:
    """One `trajplan` command of the quickstart.

    Attributes:
        name: what it does, for people.
        command: what follows `trajplan`.
        seconds: what it took on two cores of an ordinary machine.
        result: a file or folder; where it exists the step is done.
    """

    name: str
    command: str
    seconds: float
    result: Path


def steps_of(output: Path, episodes: int) -> list[Step]:
    """All steps, in order."""
    model, cloning, report = output / "model", output / "cloning", output / "report"
    levels = " ".join(f"{level:g}" for level in NOISE)
    collect = (
        f"datasets collect --env {ENV} --id {DATASET} --policy waypoint --noise {levels} --action-repeat {REPEAT} "
        f"--episodes {EPISODES}"
    )
    train = f"train --dataset {DATASET} --preset {PRESET} --output {_quoted(model)} --resume"
    same_episodes = f"--episodes {episodes} --num-envs {episodes} --seed {SEED} --resume"
    plan = f"evaluate {_quoted(model)} --output {_quoted(report)} {same_episodes} --video --picture"
    length = f"--updates {CLONING_UPDATES} --eval-every 0"  # measured once, at the end
    clone = f"baseline bc --dataset {DATASET} --output {_quoted(cloning)} {length} --resume"
    act = f"evaluate {_quoted(cloning)} {same_episodes}"
    return [
        Step("collect episodes of a noisy walker in a maze", collect, 25, output / "minari" / DATASET),
        Step("train a small Trajectory Transformer on them", train, 240, output / "trained"),
        Step(f"plan with it in {episodes} episodes, filming some", plan, 70, report / "plan.png"),
        Step("train behaviour cloning on the same data", clone, 15, output / "cloned"),
        Step("let it act in the same episodes", act, 5, output / "acted"),
    ]


def main(argv: list[str] | None = None) -> None:
    """Do what has not been done yet, then say where the report is."""
    parser = argparse.ArgumentParser(description="Collect data in a maze, train on them, plan, and write a report.")
    parser.add_argument("--output", type=Path, default=Path("quickstart"), help="folder for all that is made")
    parser.add_argument("--episodes", type=int, default=50, help="evaluation episodes (default: 50)")
    args = parser.parse_args(argv)
    output = args.output.resolve()
    report, results = output / "report", output / "report" / "results.json"
    if not results.exists():
        report.mkdir(parents=True, exist_ok=True)
        places = {"MINARI_DATASETS_PATH": str(output / "minari"), "TRAJPLAN_CACHE": str(output / "cache")}
        os.environ.update(places)
        steps = steps_of(output, args.episodes)
        announce(steps)
        export = "export " + " ".join(f"{name}={shlex.quote(path)}" for name, path in places.items())
        print(f"$ {export}")
        for number, step in enumerate(steps, 1):
            run(step, f"Step {number} of {len(steps)}", output)
        print("\nLast: the random policy and the data's walker in the same episodes, and the report.", flush=True)
        commands = [export, *(f"trajplan {step.command}" for step in steps)]
        write_report(output, DATASET, NOISE, [line.replace(f"{output.parent}{os.sep}", "") for line in commands])
    print(f"\n{json.loads(results.read_text())['summary']}")
    print(f"Report: {report / 'report.html'}, one file to open or to share")
    print(f"Act with the model in your own loop: trajplan.load({str(output / 'model')!r}), see README.md")


def announce(steps: list[Step]) -> None:
    """Say what will be done and how long it will take."""
    left = [step for step in steps if not step.result.exists()]
    minutes = sum(step.seconds for step in left) / 60 + 0.5
    print(
        f"The quickstart takes about {max(1, round(minutes))} minutes on two CPU cores, longer where others use them:"
    )
    for number, step in enumerate(steps, 1):
        print(f"  {number}. {step.name} ({'done' if step not in left else f'about {step.seconds:.0f} s'})")
    print("Ctrl-C stops it, and the same command goes on from there.\n", flush=True)


def run(step: Step, number: str, output: Path) -> None:
    """Run one step that is not done; stop the quickstart if it does not succeed."""
    if step.result.exists():
        return
    print(f"\n{number}: {step.name}, about {step.seconds:.0f} s\n$ trajplan {step.command}", flush=True)
    start = time.perf_counter()
    status = trajplan(shlex.split(step.command))
    if status:
        print("The same quickstart command goes on from here.")
        raise SystemExit(status)
    seconds = time.perf_counter() - start
    if not step.result.exists():
        step.result.write_text("")  # a mark, where the command leaves no file that tells that it is done
    times = output / "seconds.json"
    known = json.loads(times.read_text()) if times.exists() else {}
    times.write_text(json.dumps({**known, step.name: round(seconds, 1)}, indent=2) + "\n")
    print(f"{number} is done, in {seconds:.0f} s.", flush=True)


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


if __name__ == "__main__":
    main()
