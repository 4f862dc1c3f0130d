import dataclasses

import pytest

from trajplan.baselines.engine.settings import RunConfig
from trajplan.baselines.registry import METHODS
from trajplan.comparison.settings import (
    TRANSFORMER,
    EvaluationConfig,
    changed_flags,
    parse_methods,
    parse_settings,
    set_words,
    split_planner,
)
from trajplan.errors import ConfigError
from trajplan.planners.beam_search import BeamSearchConfig
from trajplan.training.config import TrainConfig

ALL = {name: name for name in (*METHODS, TRANSFORMER)}


def test_methods_stand_under_their_names_or_labels():
    assert parse_methods("bc, bc10=bc,tt") == {"bc": "bc", "bc10": "bc", "tt": "tt"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bc,ppo", "Unknown method 'ppo'; there are bc, "),
        ("bc,bc", "names bc twice; give the second one a label, as bc2=bc"),
        ("bc,", "'' cannot name a method"),
        ("../x=bc", "'../x' cannot name a method"),
        ("baselines=bc", "'baselines' cannot name a method"),
        ("tt=bc", "'tt' is another method's name; give bc another label, as bc2=bc"),
        ("bc,iql=bc", "'iql' is another method's name"),
    ],
)
def test_odd_methods_are_refused(text, message):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        parse_methods(text)


def test_values_have_the_types_of_the_configs():
    words = ["bc.updates=5000", "bc.standardize=false", "bc.top-fraction=0.1", "tt.termination_penalty=none"]
    words += ["tt.planner.action_top_k=7", "tt.preset=tt_debug", "iql.policy=deterministic"]
    settings = parse_settings(words, ALL)
    assert settings["bc"] == {"updates": 5000, "standardize": False, "top_fraction": 0.1}
    assert settings["tt"] == {"termination_penalty": None, "planner.action_top_k": 7, "preset": "tt_debug"}
    assert settings["iql"] == {"policy": "deterministic"}
    assert settings["awac"] == {}
    training = {"termination_penalty": None, "preset": "tt_debug"}
    assert split_planner(settings["tt"]) == (training, None, {"action_top_k": 7})


def test_a_planner_is_named_and_its_settings_are_its_own():
    # In whatever order.
    words = ["tt.planner.beam_width=3", "tt.planner=imitation", "tt.window=6"]
    settings = parse_settings(words, ALL)["tt"]
    assert split_planner(settings) == ({"window": 6}, "imitation", {"beam_width": 3})
    assert parse_settings(set_words("tt", settings), ALL)["tt"] == settings
    with pytest.raises(ConfigError, match=r"tt has no setting 'planner\.n_expand'; "):
        parse_settings([*words, "tt.planner.n_expand=2"], ALL)
    with pytest.raises(ConfigError, match="Unknown planner 'imitate'; did you mean imitation"):
        parse_settings(["tt.planner=imitate"], ALL)


def test_an_ensemble_has_planners_of_its_own():
    methods = {"dynamics": "dynamics", "mppi": "dynamics", "tt": "tt"}
    words = ["dynamics.model_width=9", "dynamics.planner.elites=4", "mppi.planner=mppi", "mppi.planner.kept=3"]
    settings = parse_settings(words, methods)
    assert split_planner(settings["dynamics"]) == ({"model_width": 9}, None, {"elites": 4})
    assert split_planner(settings["mppi"]) == ({}, "mppi", {"kept": 3})
    assert parse_settings(set_words("mppi", settings["mppi"]), methods)["mppi"] == settings["mppi"]
    with pytest.raises(ConfigError, match=r"beam_search does not plan on dynamics; there are random_shooting, cem,"):
        parse_settings(["mppi.planner=beam_search"], methods)
    with pytest.raises(ConfigError, match=r"cem does not plan on tt; there are beam_search, "):
        parse_settings(["tt.planner=cem"], methods)
    with pytest.raises(ConfigError, match=r"no baseline is compared, only dynamics, mppi, tt"):
        parse_settings(["baselines.updates=3"], methods)
    with pytest.raises(ConfigError, match=r"dynamics has no setting 'preset'"):
        parse_settings(["mppi.preset=tt_debug"], methods)


def test_what_is_said_of_one_method_wins_over_what_is_said_of_all_baselines():
    settings = parse_settings(["iql.updates=7", "baselines.updates=5"], ALL)
    assert settings["iql"]["updates"] == 7
    assert all(settings[name]["updates"] == 5 for name in METHODS if name != "iql")
    assert settings["tt"] == {}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("iql.updates", "--set takes METHOD.NAME=VALUE"),
        ("updates=5", "--set takes METHOD.NAME=VALUE"),
        ("ppo.updates=5", "'ppo' is none of the methods compared, bc, "),
        ("iql.expectil=0.5", "iql has no setting 'expectil'; did you mean expectile"),
        ("bc.expectile=0.5", "bc has no setting 'expectile'; "),
        ("tt.planner.horizn=5", "tt has no setting 'planner.horizn'; did you mean horizon"),
        ("iql.updates=many", "--set iql.updates=many: updates is 'many'; it must be a whole number"),
        ("iql.policy=odd", "--set iql.policy=odd: policy is 'odd'; it must be among "),
        ("bc.standardize=maybe", "--set bc.standardize=maybe: standardize is 'maybe'; it must be true or false."),
        ("iql.updates=true", "--set iql.updates=true: updates is 'true'; it must be a whole number"),
        ("bc.seed=3", "seeds are set for all methods alike, by --seeds"),
        ("baselines.nonsense=3", "bc has no setting 'nonsense'"),
        ("tt.seed=3", "seeds are set for all methods alike, by --seeds"),
    ],
)
def test_unknown_settings_and_values_are_named(word, message):
    with pytest.raises(ConfigError) as error:
        parse_settings([word], ALL)
    assert message in str(error.value)


@pytest.mark.parametrize("word", ["baselines.nonsense=3", "baselines.updates=5"])
def test_a_setting_of_all_baselines_needs_one(word):
    with pytest.raises(ConfigError, match=f"--set {word}: no baseline is compared, only tt, wide; leave it out"):
        parse_settings([word], {"tt": "tt", "wide": "tt"})


@pytest.mark.parametrize("label", ALL)
def test_every_setting_of_every_method_survives_the_way_through_words(label):
    classes = [TrainConfig] if label == TRANSFORMER else [METHODS[label].config_class(), RunConfig]
    settings = {name: value for config in classes for name, value in dataclasses.asdict(config()).items()}
    settings |= {f"planner.{k}": v for k, v in dataclasses.asdict(BeamSearchConfig()).items()} if label == "tt" else {}
    del settings["seed"]
    assert parse_settings(set_words(label, settings), ALL)[label] == settings


def test_only_what_differs_from_the_defaults_is_given():
    assert changed_flags(EvaluationConfig(episodes=10, episode_seed=7)) == ["--episode-seed=7"]


def test_the_evaluation_is_checked():
    with pytest.raises(ConfigError, match="episodes is 0"):
        EvaluationConfig(episodes=0)
    with pytest.raises(ConfigError, match="max_episode_steps is -5; it must be at least 1, or none"):
        EvaluationConfig(max_episode_steps=-5)
    with pytest.raises(ConfigError, match="episode_seed is -1"):
        EvaluationConfig(episode_seed=-1)


def test_a_value_of_the_wrong_kind_is_named_by_the_word_that_was_typed() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_settings(["bc.updates=abc"], {"bc": "bc"})
    assert str(caught.value) == "--set bc.updates=abc: updates is 'abc'; it must be a whole number."
