import json
import re
import shutil
import subprocess

import gymnasium
import numpy as np
import pytest

from trajplan.data.info import DatasetInfo
from trajplan.errors import DataError
from trajplan.evaluation.pictures import viewer
from trajplan.evaluation.pictures.viewer import ViewerTrace, save_viewer, viewer_data, viewer_page
from trajplan.evaluation.policy import RandomPolicy
from trajplan.evaluation.rollout import Moment, evaluate


class Planning(RandomPolicy):
    """A random policy that makes up a plan every few steps."""

    def __init__(self, info, make_plan, every=1, **settings):
        super().__init__(info)
        self.make_plan, self.every, self.settings = make_plan, every, settings
        self.last_plans, self.steps = {}, 0

    def act(self, observations, rewards, rows):
        if self.steps % self.every == 0:
            for observation, row in zip(observations, rows, strict=True):
                self.last_plans[row] = self.make_plan(observation, self.info, seed=self.steps, **self.settings)
        self.steps += 1
        return super().act(observations, rewards, rows)


def traced(info, make_plan, every=1, steps=12, **settings):
    policy = Planning(info, make_plan, every, **settings)
    trace, plans = ViewerTrace(policy), {}

    def note(moment):
        if moment.action is not None and moment.step % every == 0:
            plans[moment.step] = policy.last_plans[0]

    evaluate(policy, lambda: info.make_env(max_episode_steps=steps), episodes=1, observers=[trace, note])
    return trace, plans


def read(page):
    """The data in a page, as the page reads it."""
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_planned_and_realised_values_can_be_read_back(pendulum, make_plan):
    trace, plans = traced(pendulum, make_plan, every=5, steps=12)
    data = read(viewer_page(trace, pendulum))
    assert [plan["step"] for plan in data["plans"]] == [0, 5, 10]
    assert (data["steps"], len(data["actions"]), len(data["returns"])) == (12, 12, 13)
    assert [column["name"] for column in data["columns"]] == [*(f"observation[{i}]" for i in range(3)), "reward"]
    observations = np.array(trace.observations)
    for shown in data["plans"]:
        made = plans[shown["step"]]
        assert (shown["kept"], shown["ranks"]) == (16, list(range(16)))
        lengths = made.alive.sum(1)
        ends = [bool(length < 10 and beam % 2 == 0) for beam, length in enumerate(lengths)]
        assert shown["ends"] == ends
        assert True in ends
        assert len({length for length, end in zip(lengths, ends, strict=True) if not end}) > 1
        assert shown["scores"] == pytest.approx(made.scores, rel=1e-4)
        assert shown["log_likelihood"] == pytest.approx(made.log_likelihood, rel=1e-4)
        for beam, path in enumerate(shown["paths"]):
            length = made.alive[beam].sum()  # ended trajectories stop where they end
            for dim, (column, values) in enumerate(zip(data["columns"], path, strict=True)):
                source = made.rewards[beam] if dim == 3 else made.observations[beam, :, dim]
                low, high = column["low"], column["high"]
                found = low + np.array(values) * (high - low) / 999
                assert found == pytest.approx(source[:length].clip(low, high), abs=(high - low) / 1998 + 1e-6)
    assert data["columns"][2]["values"] == pytest.approx(observations[:, 2], rel=1e-4)
    assert data["columns"][3]["values"] == pytest.approx(trace.rewards, rel=1e-4)
    assert data["returns"][-1] == pytest.approx(sum(trace.rewards), rel=1e-4)


def test_a_maze_is_seen_from_above(point_maze, make_plan):
    trace, _ = traced(point_maze, make_plan)
    data = viewer_data(trace, point_maze)
    assert len(data["columns"]) == 2
    assert np.array(data["maze"]["walls"]).shape == trace.maze.walls.shape
    position = np.array(trace.observations)[:, trace.maze.position]
    assert data["columns"][1]["values"] == pytest.approx(position[:, 1], rel=1e-4)
    assert data["maze"]["goals"][3] == pytest.approx(trace.observations[3][trace.maze.goal], rel=1e-4)


def test_discrete_actions_one_trajectory_and_numbers_that_are_none(cartpole, make_plan):
    trace, _ = traced(cartpole, make_plan, steps=5, beams=1)
    trace.plans[0].scores[0] = -np.inf
    trace.plans[0].observations[0, 1] = np.nan
    data = read(viewer_page(trace, cartpole))
    assert data["plans"][0]["scores"] == [None]
    assert data["plans"][0]["paths"][0][0][1] is None
    assert {action for actions in data["actions"] for action in actions} <= {0.0, 1.0}


def test_a_long_episode_leaves_room_for_fewer_trajectories(pendulum, make_plan, monkeypatch):
    trace, _ = traced(pendulum, make_plan, steps=30, beams=200)
    whole = viewer_page(trace, pendulum)
    assert len(read(whole)["plans"][0]["ranks"]) == 32
    monkeypatch.setattr(viewer, "BYTES", len(whole) // 2)
    page = viewer_page(trace, pendulum)
    assert len(page) <= len(whole) // 2
    plan = read(page)["plans"][0]
    assert 4 < len(plan["ranks"]) < 25
    assert (plan["ranks"][0], plan["ranks"][-1]) == (0, 199)
    assert f"at most {len(plan['ranks'])} trajectories" in read(page)["about"]
    monkeypatch.setattr(viewer, "BYTES", 1000)
    with pytest.raises(DataError, match="too long for a page: give a smaller --max-episode-steps"):
        viewer_page(trace, pendulum)


def test_many_steps_of_a_wide_environment_stay_under_ten_megabytes(make_plan, tmp_path):
    space = gymnasium.spaces.Box(-np.inf, np.inf, (105,), np.float32)
    info = DatasetInfo(id="wide", observation_space=space, action_space=gymnasium.spaces.Box(-1, 1, (8,), np.float32))
    policy = Planning(info, make_plan, beams=128, horizon=15)
    trace, rng = ViewerTrace(policy), np.random.default_rng(0)
    plans = [make_plan(rng.normal(size=105).astype(np.float32), info, beams=128, horizon=15) for _ in range(5)]
    env = gymnasium.make("CartPole-v1")
    for step in range(501):
        policy.last_plans[0] = plans[step % 5]
        action = None if step == 500 else np.zeros(8, np.float32)
        observation = rng.normal(size=105).astype(np.float32)
        trace(Moment(episode=0, slot=0, step=step, env=env, observation=observation, action=action, reward=1.0))
    save_viewer(trace, info, tmp_path / "viewer.html")
    assert 5e6 < (tmp_path / "viewer.html").stat().st_size < 1e7
    assert len(read((tmp_path / "viewer.html").read_text())["plans"]) == 500


def test_a_name_cannot_break_out_and_nothing_is_loaded_from_elsewhere(pendulum, make_plan):
    trace, _ = traced(pendulum, make_plan, steps=3)
    evil = "</script><script>alert(1)</script><!--"
    info = DatasetInfo(id=evil, observation_space=pendulum.observation_space, action_space=pendulum.action_space)
    page = viewer_page(trace, info)
    assert "alert(1)</script>" not in page
    assert read(page)["title"] == evil
    assert page.count("<script") == page.count("</script>") == 2
    links = re.findall(r"(?:src|href|url|@import|https?:)[^;\n]*", page.replace("http://www.w3.org/2000/svg", ""))
    assert links == []


def test_an_episode_without_plans_is_refused(pendulum):
    trace = ViewerTrace(RandomPolicy(pendulum))
    evaluate(trace.policy, lambda: pendulum.make_env(max_episode_steps=3), episodes=1, observers=[trace])
    with pytest.raises(DataError, match="holds no plan to show"):
        viewer_page(trace, pendulum)


@pytest.fixture
def in_browser(tmp_path):
    """Opens a page in Chromium, runs a script at its end, and gives what the body's data attributes then are."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "install chromium"

    def run(page, script=""):
        noted = "<script>window.onerror = m => { document.documentElement.dataset.error = m; };</script>"
        (tmp_path / "page.html").write_text(noted + page + f"<script>{script}</script>")
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1280,900"]
        command += [f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=5000", "--dump-dom"]
        done = subprocess.run(
            [*command, (tmp_path / "page.html").as_uri()], capture_output=True, text=True, timeout=120, check=True
        )
        dom = done.stdout
        assert "data-error" not in dom
        found = dict(re.findall(r'data-([a-z]+)="([^"]*)"', re.search(r"<body[^>]*>", dom)[0]))
        return found, dom

    return run


KEY = "const key = (name, more) => document.body.dispatchEvent(new KeyboardEvent('keydown', {key: name, bubbles: true, cancelable: true, ...more}));"  # noqa: E501


@pytest.mark.browser
def test_keyboard_and_mouse_walk_through_an_episode(pendulum, make_plan, in_browser):
    page = viewer_page(traced(pendulum, make_plan, every=5, steps=40)[0], pendulum)
    start, dom = in_browser(page)
    assert start == {"step": "0", "plan": "0", "beam": "0", "playing": "false"}
    assert "Pendulum-v1: plans of episode 0</title>" in dom
    assert dom.count('class="beam') == 4 * 16
    assert "step 0 of 40" in dom
    for keys, step, plan in [
        ("key('ArrowRight'); key('ArrowRight'); key('ArrowLeft')", 1, 0),
        ("key('ArrowRight', {shiftKey: true})", 10, 10),
        ("key('PageDown'); key('PageDown'); key('PageUp')", 5, 5),
        ("key('End')", 40, 35),
        ("key('End'); key('ArrowRight'); key('Home'); key('ArrowLeft')", 0, 0),
        ("key('x'); key('ArrowRight', {ctrlKey: true})", 0, 0),
        ("const s = get('scrubber'); s.value = 23; s.dispatchEvent(new Event('input'))", 23, 20),
        ("document.querySelector('[data-go=last]').click(); document.querySelector('[data-go=back]').click()", 39, 35),
    ]:
        found, _ = in_browser(page, KEY + keys)
        assert (found["step"], found["plan"]) == (str(step), str(plan)), keys
    strip = "const b = get('strip').getBoundingClientRect();"
    strip += "get('strip').dispatchEvent(new MouseEvent('click', {clientX: b.left + b.width / 2}))"
    assert in_browser(page, strip)[0]["step"] == "20"
    assert in_browser(page, "document.querySelectorAll('#beams tr')[6].click()")[0]["beam"] == "6"
    down = "key('ArrowDown', {shiftKey: true}); key('ArrowDown', {shiftKey: true}); key('ArrowUp')"
    assert in_browser(page, KEY + down)[0]["beam"] == "14"
    assert in_browser(page, KEY + down + "; key('ArrowRight')")[0]["beam"] == "0"


@pytest.mark.browser
def test_space_plays_to_the_end_and_pauses(pendulum, make_plan, in_browser):
    page = viewer_page(traced(pendulum, make_plan, steps=10)[0], pendulum)
    found, _ = in_browser(page, KEY + "key(' ')")
    assert (found["step"], found["playing"]) == ("10", "false")
    found, _ = in_browser(page, KEY + "key(' '); setTimeout(() => key(' '), 420)")
    assert found["playing"] == "false"
    assert 2 <= int(found["step"]) <= 4


@pytest.mark.browser
def test_a_maze_a_single_trajectory_and_missing_numbers_are_drawn(point_maze, cartpole, make_plan, in_browser):
    trace, _ = traced(point_maze, make_plan)
    found, dom = in_browser(viewer_page(trace, point_maze), KEY + "key('End')")
    assert found["step"] == "12"
    assert dom.count('class="wall"') == trace.maze.walls.sum()
    assert dom.count('class="beam') == 16
    trace, _ = traced(cartpole, make_plan, steps=5, beams=1)
    trace.plans[0].scores[0] = -np.inf
    trace.plans[0].observations[0, 1] = np.nan
    found, dom = in_browser(viewer_page(trace, cartpole))
    assert dom.count('class="beam ahead"') == 5
    assert "NaN" not in re.sub("(?s)<script.*?</script>", "", dom)
