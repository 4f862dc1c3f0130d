import pytest

from trajplan.baselines.engine.value_picture import save_value_picture


@pytest.mark.parametrize("last", [12.0, 1e7])
def test_the_picture_is_drawn_also_of_values_that_diverge(last, tmp_path):
    names = ("predicted_value", "discounted_return", "cut_weight")
    numbers = [(5.0, 8.0, 0.0), (9.0, 10.0, 0.2), (last, 11.0, 0.1)]
    lines = [
        {"update": 10 * i} | {f"evaluation/{name}": value for name, value in zip(names, line, strict=True)}
        for i, line in enumerate(numbers)
    ]
    save_value_picture([{"update": 3, "critic/loss": 1.0}, *lines], tmp_path / "values.png")
    assert (tmp_path / "values.png").stat().st_size > 10_000
    save_value_picture([{"update": 3}], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
