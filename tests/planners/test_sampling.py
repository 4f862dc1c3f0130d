import pytest
import torch

from trajplan.config import from_dict
from trajplan.planners.beam_search import BeamSearchConfig
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


def release_mask(logits, threshold):
    """What the paper's code keeps of (V,) logits: sorted upwards, the tokens before `threshold` of the mass go."""
    probabilities = logits.double().softmax(-1)
    order = sorted(range(len(logits)), key=lambda token: float(probabilities[token]))
    total, kept = 0.0, set()
    for token in order:
        total += float(probabilities[token])
        if total >= threshold:
            kept.add(token)
    return kept


def kept_by(logits, cdf):
    grid = (torch.arange(4000) + 0.5) / 4000
    return set(sample(logits.expand(4000, -1), grid, top_k=None, cdf=cdf, temperature=1.0).tolist())


def test_the_likeliest_four_tenths_are_what_the_release_keeps_at_its_cdf_of_six_tenths():
    gaussian = -0.5 * ((torch.arange(100) - 49.6) / 10) ** 2
    assert kept_by(gaussian, 0.4) == release_mask(gaussian, 0.6)
    assert (len(kept_by(gaussian, 0.4)), len(kept_by(gaussian, 0.6))) == (11, 17)
    generator = torch.Generator().manual_seed(0)
    for spread in (0.3, 1.0, 3.0):
        for logits in torch.randn(50, 100, generator=generator) * spread:
            assert kept_by(logits, 0.4) == release_mask(logits, 0.6)
    assert BeamSearchConfig().action_cdf == 0.4


def test_a_planner_saved_with_a_wider_cut_keeps_it():
    assert from_dict(BeamSearchConfig, {"horizon": 5, "action_cdf": 0.6}).action_cdf == 0.6


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
