"""Advice on filming fits what is missing, and following it never leads back."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest

from trajplan.errors import ConfigError
from trajplan.evaluation.environments import import_mujoco
from trajplan.evaluation.pictures import rendering
from trajplan.evaluation.pictures.rendering import check_rendering, render
from trajplan.evaluation.pictures.video import check_encoder


def rendered(env_id: str):
    return lambda: gymnasium.make(env_id, render_mode="rgb_array", disable_env_checker=True)


def refusal(make_env) -> str | None:
    try:
        check_rendering(make_env)
    except ConfigError as error:
        return str(error)
    return None


def advice(make_env) -> str:
    text = refusal(make_env)
    assert text
    assert "\n" not in text
    return text


@pytest.fixture
def without_pygame(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)


def test_classic_control_asks_for_pygame_and_for_nothing_of_opengl(without_pygame, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "egl")
    for name in ("Pendulum-v1", "CartPole-v1"):
        text = advice(rendered(name))
        assert text == (
            f"--video cannot draw {name}: it is drawn by pygame, which is not installed; pip install pygame-ce, "
            "or leave --video out."
        )


class Broken(gymnasium.Wrapper):
    """Raises what a renderer might."""

    def __init__(self, env, error):
        super().__init__(env)
        self.error = error

    def render(self):
        raise self.error


def test_other_missing_packages_are_named_in_gymnasiums_words():
    error = gymnasium.error.DependencyNotInstalled('Box2D is not installed, run `pip install "gymnasium[box2d]"`')
    text = advice(lambda: Broken(gymnasium.make("CartPole-v1"), error))
    assert 'Box2D is not installed, run pip install "gymnasium[box2d]", or leave --video out.' in text
    assert "MUJOCO_GL" not in text


def test_an_environment_that_does_not_render_is_not_told_to_install_anything():
    text = advice(lambda: Broken(gymnasium.make("CartPole-v1"), NotImplementedError()))
    assert text.startswith("--video cannot draw CartPole-v1: NotImplementedError;")
    assert "install" not in text


def test_frames_that_are_no_arrays_are_refused():
    class Text(gymnasium.Wrapper):
        def render(self):
            return "text"

    assert "renders to arrays" in advice(lambda: Text(gymnasium.make("CartPole-v1")))


class Machine:
    """What is installed on a made-up machine, what of it works, and a user who does as told."""

    def __init__(self, monkeypatch, installed, working):
        self.installed, self.working = set(installed), set(working)
        self.monkeypatch = monkeypatch
        monkeypatch.setattr(rendering, "_has", lambda name: name in self.installed)
        monkeypatch.setattr(rendering, "_works", lambda name: name in self.installed & self.working)
        monkeypatch.setattr(rendering, "_is_of_mujoco", lambda error: True)
        monkeypatch.delenv("DISPLAY", raising=False)

    def make_env(self):
        """Of MuJoCo, which draws if what it is told to use is there and works."""
        import os

        env = gymnasium.make("CartPole-v1")
        if os.environ.get("MUJOCO_GL") not in self.installed & self.working:
            return Broken(env, AttributeError("'NoneType' object has no attribute 'glGetError'"))
        env.render = lambda: np.zeros((4, 4, 3), np.uint8)
        return env

    def follow(self, text):
        done = False
        for name, (_, packages) in rendering.OFFSCREEN.items():
            if f"apt-get install {packages}" in text:
                assert name not in self.installed
                self.installed.add(name)
                done = True
            if f"set MUJOCO_GL={name}" in text:
                self.monkeypatch.setenv("MUJOCO_GL", name)
                done = True
        return done


@pytest.mark.parametrize("chosen", [None, "egl", "osmesa", "glfw", "disabled"])
@pytest.mark.parametrize("installed", [(), ("egl",), ("osmesa",), ("egl", "osmesa")])
@pytest.mark.parametrize("working", [(), ("egl",), ("osmesa",), ("egl", "osmesa")])
def test_following_the_advice_comes_to_an_end(monkeypatch, chosen, installed, working):
    machine = Machine(monkeypatch, installed, working)
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    if chosen is not None:
        monkeypatch.setenv("MUJOCO_GL", chosen)
    told = []
    for _ in range(4):
        text = refusal(machine.make_env)
        if text is None:
            assert working
            return
        assert text not in told
        told.append(text)
        if not machine.follow(told[-1]):
            # There is nothing left to install, and nothing that works.
            assert not working
            assert machine.installed == set(rendering.OFFSCREEN)
            assert told[-1].endswith("film on another machine, or leave --video out.")
            return
    pytest.fail(f"a circle: {told}")


def test_what_mujoco_itself_raises_is_taken_for_its_own(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    text = advice(rendered("Hopper-v5"))
    assert text.startswith("--video cannot draw Hopper-v5: MuJoCo cannot, with MUJOCO_GL=disabled (")
    assert "set MUJOCO_GL=" in text


@pytest.mark.skipif(not rendering._works("egl"), reason="no EGL here")
def test_a_way_that_works_is_advised_and_works(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    assert "set MUJOCO_GL=egl, which works here" in advice(rendered("Hopper-v5"))
    monkeypatch.setenv("MUJOCO_GL", "egl")
    check_rendering(rendered("Hopper-v5"))


def test_an_impossible_choice_is_one_sentence_and_leads_on():
    code = (
        "from trajplan.evaluation.environments import import_mujoco\nfrom trajplan.errors import ConfigError\n"
        "try: import_mujoco()\nexcept ConfigError as error: print(error)"
    )
    environment = {"MUJOCO_GL": "foo", "PYTHONPATH": str(Path(rendering.__file__).parents[3])}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.startswith("MuJoCo cannot be imported with MUJOCO_GL=foo (invalid value")
    assert "; unset MUJOCO_GL" in result.stdout
    assert import_mujoco().__name__ == "mujoco"


def test_what_writes_the_film_is_looked_for_first(monkeypatch):
    import imageio_ffmpeg

    check_encoder()

    def nothing():
        raise RuntimeError("No ffmpeg exe could be found.")

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", nothing)
    with pytest.raises(ConfigError, match=r"does not find here; install it .*apt-get install ffmpeg"):
        check_encoder()
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ConfigError, match="pip install imageio-ffmpeg"):
        check_encoder()


def test_every_simulator_is_drawn_into_its_own_context():
    current = []

    class Simulator(gymnasium.Env):
        def __init__(self, name):
            self.name = name

        def render(self):
            if not hasattr(self, "mujoco_renderer"):  # made with the first frame, and current then
                viewer = SimpleNamespace(make_context_current=lambda: current.append(self.name))
                self.mujoco_renderer = SimpleNamespace(viewer=viewer)
                current.append(self.name)
            return np.full((4, 4, 3), 200 if current[-1] == self.name else 0, np.uint8)

    one, other = Simulator("one"), Simulator("other")
    assert [int(render(env).min()) for env in (one, other, one, other, other)] == [200] * 5
