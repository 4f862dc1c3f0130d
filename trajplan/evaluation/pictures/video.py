"""Videos of episodes as mp4: mazes from above without graphics libraries, others as they render themselves.

Beside MuJoCo's locomotion stands what the policy imagined of it, where it makes plans.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from trajplan.errors import ConfigError
from trajplan.evaluation.pictures.imagined import Imagination, skipped_positions
from trajplan.evaluation.pictures.maze import MazeRenderer, is_point_maze, maze_of
from trajplan.evaluation.pictures.rendering import render
from trajplan.evaluation.pictures.trace import current_plan
from trajplan.evaluation.policy import Policy
from trajplan.evaluation.rollout import Moment

SMOOTH = 30  # frames a second; an environment that is faster is filmed every few steps, at its true speed


class VideoRecorder:
    """An observer of `trajplan.evaluation.rollout.evaluate` that films the first few episodes.

    Args:
        policy: whose plans are drawn into mazes, and shown beside MuJoCo's locomotion.
        folder: gets `episode-000.mp4` and so on, each complete or not there at all.
        episodes: how many, from episode 0.
    """

    def __init__(self, policy: Policy, folder: Path, episodes: int = 3) -> None:
        self.policy = policy
        self.folder = folder
        self.episodes = episodes
        self.written: list[Path] = []
        self.notes: set[str] = set()
        self._running: dict[int, _Film] = {}

    def __call__(self, moment: Moment) -> None:
        """Film one moment, if it belongs to one of the episodes."""
        if moment.episode >= self.episodes:
            return
        if moment.step == 0:
            path = self.folder / f"episode-{moment.episode:03d}.mp4"
            film = self._running[moment.episode] = _Film(moment, self.policy, path)
            if film.maze is None and film.imagination is None and hasattr(self.policy, "last_plans"):
                name = moment.env.spec.id if moment.env.spec else "the environment"
                self.notes.add(f"{name} is filmed without its plans: its observations are not known to tell its state")
        film = self._running[moment.episode]
        film.add(moment)
        if moment.action is None:
            self.written.append(film.finish())
            del self._running[moment.episode]

    def close(self) -> None:
        """Drop what is unfinished."""
        for film in self._running.values():
            film.drop()
        self._running.clear()


class _Film:
    def __init__(self, moment: Moment, policy: Policy, path: Path) -> None:
        self.policy = policy
        self.path = path
        self.partial = path.with_name(path.stem + ".partial.mp4")
        self.total = 0.0
        self.places: list[np.ndarray] = []
        self.maze = maze_of(moment.env, policy.info) if is_point_maze(moment.env, policy.info) else None
        self.renderer = MazeRenderer(self.maze) if self.maze else None
        fps = moment.env.metadata.get("render_fps") or SMOOTH
        self.every = max(1, round(fps / SMOOTH))
        self.fps = round(fps / self.every)
        self.writer: Any = None
        skipped = skipped_positions(moment.env, moment.observation) if hasattr(policy, "last_plans") else None
        self.imagination = Imagination(moment, skipped) if skipped is not None and self.maze is None else None

    def add(self, moment: Moment) -> None:
        self.total += moment.reward
        if self.maze is not None:
            self.places.append(moment.observation[self.maze.position].copy())
        if self.imagination is not None:
            self.imagination.follow(moment, current_plan(self.policy, moment.slot))
        if moment.step % self.every and moment.action is not None:
            return
        frame = self._frame(moment)
        if self.writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.writer = open_mp4(self.partial, frame.shape[1], frame.shape[0], self.fps)
        self.writer.send(np.ascontiguousarray(frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2]))

    def _frame(self, moment: Moment) -> np.ndarray:
        caption = f"step {moment.step}   return {self.total:.1f}"
        if self.renderer is None or self.maze is None:
            frame = render(moment.env)
            if self.imagination is None:
                return frame
            imagined, words = self.imagination.frame(moment.step)
            return np.concatenate([captioned(frame, caption), captioned(imagined, words)], axis=1)
        plan = current_plan(self.policy, moment.slot) if moment.action is not None else None
        goal = self.maze.goal_in(moment.env, moment.observation)
        return self.renderer.frame(moment.observation, np.array(self.places), plan, caption, goal)

    def finish(self) -> Path:
        self._close()
        os.replace(self.partial, self.path)
        return self.path

    def drop(self) -> None:
        self._close()
        self.partial.unlink(missing_ok=True)

    def _close(self) -> None:
        for opened in (self.writer, self.imagination):
            if opened is not None:
                opened.close()


def captioned(frame: np.ndarray, words: str) -> np.ndarray:
    """A frame (height, width, 3) uint8 with a few words in its upper left corner."""
    image = Image.fromarray(frame)
    size = frame.shape[0] / 24
    font = ImageFont.load_default(size=size)
    outline = {"stroke_width": round(size / 10), "stroke_fill": (0, 0, 0)}
    ImageDraw.Draw(image).text((size / 2, size / 3), words, fill=(255, 255, 255), font=font, **outline)
    return np.asarray(image)


def check_encoder() -> None:
    """Look for what writes an mp4."""
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except ImportError:
        raise ConfigError(
            "--video writes mp4 files by imageio-ffmpeg, which is not installed; pip install imageio-ffmpeg, or leave "
            "--video out."
        ) from None
    except RuntimeError:
        raise ConfigError(
            "--video writes mp4 files by ffmpeg, which imageio-ffmpeg does not find here; install it (Debian, Ubuntu: "
            "apt-get install ffmpeg), or leave --video out."
        ) from None


def open_mp4(path: Path, width: int, height: int, fps: int) -> Any:
    """A generator to send (height, width, 3) uint8 frames to; `close()` finishes the file. Odd sizes lose a pixel."""
    import imageio_ffmpeg

    writer = imageio_ffmpeg.write_frames(
        str(path), (width // 2 * 2, height // 2 * 2), fps=fps, macro_block_size=1, ffmpeg_log_level="error"
    )
    writer.send(None)
    return writer
