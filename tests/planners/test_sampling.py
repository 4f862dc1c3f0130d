import pytest
import torch

from trajplan.planners.sampling import sample

LOGITS = torch.tensor([0.1, 0.4, 0.3, 0.2]).log()


def draw(noise, **settings):
    settings = {"top_k": None, "cdf": None, "temperature": 1.0} | settings
    noise = torch.as_tensor(noise)
    return sample(LOGITS.expand(*noise.shape, 4), noise, **settings)


def frequencies(**settings):
    grid = (torch.arange(10_000) + 0.5) / 10_000
    return torch.bincount(draw(grid, **settings), minlength=4) / 10_000


def test_an_even_grid_of_noise_draws_the_distribution_itself():
    torch.testing.assert_close(frequencies(), torch.tensor([0.1, 0.4, 0.3, 0.2]), atol=2e-4, rtol=0)


def test_top_k_keeps_the_likeliest():
    torch.testing.assert_close(frequencies(top_k=2), torch.tensor([0, 4 / 7, 3 / 7, 0]), atol=2e-4, rtol=0)
    assert frequencies(top_k=1).tolist() == [0, 1, 0, 0]
    torch.testing.assert_close(frequencies(top_k=50), frequencies(top_k=4))


@pytest.mark.parametrize(
    ("cdf", "kept"), [(0.05, [1]), (0.39, [1]), (0.41, [1, 2]), (0.69, [1, 2]), (0.71, [1, 2, 3]), (1.0, [0, 1, 2, 3])]
)
def test_cdf_keeps_the_smallest_set_of_the_likeliest_that_reaches_it(cdf, kept):
    assert frequencies(cdf=cdf).nonzero().flatten().tolist() == kept


def test_temperature_comes_before_the_cuts():
    sharpened = LOGITS.exp() ** 2 / (LOGITS.exp() ** 2).sum()
    torch.testing.assert_close(frequencies(temperature=0.5), sharpened, atol=2e-4, rtol=0)
    # Squared, the two likeliest hold 0.83 of the mass; untouched they hold 0.7.
    assert frequencies(temperature=0.5, cdf=0.8).nonzero().flatten().tolist() == [1, 2]


def test_no_noise_draws_a_token_without_mass():
    logits = torch.tensor([-torch.inf, 0.0, 1.0, -torch.inf])
    for noise in (0.0, 1 - 2**-24):
        for settings in ({"cdf": 0.99}, {"cdf": None}, {"top_k": 3}):
            settings = {"top_k": None, "cdf": None, "temperature": 1.0} | settings
            assert int(sample(logits[None], torch.tensor([noise]), **settings)) in (1, 2)


def test_greedy_needs_no_noise_and_everything_else_does():
    assert int(sample(LOGITS, None, top_k=1, cdf=None, temperature=1.0)) == 1
    with pytest.raises(ValueError, match="noise"):
        sample(LOGITS, None, top_k=2, cdf=None, temperature=1.0)
