"""Ranks of simulations: uniform for the right posterior, the known shapes for wrong ones, exact bands."""

import pytest
import torch
from scipy import stats

from bayesmol.errors import ConvergenceError, DataError, ShapeError
from bayesmol.inference.simulation import Ranks, independent_draws, simulated_ranks


def simulated(spread=1.0, shift=0.0, correlation=None, simulations=300, draws=31, seed=0):
    """A normal mean with unit prior and unit noise; draws from its posterior, or from one that is wrong."""

    def posterior(data, source):
        size = draws if correlation is None else 40 * draws
        normal = torch.randn(size, 2, generator=source, dtype=torch.float64)
        if correlation is not None:
            for k in range(1, size):
                normal[k] = correlation * normal[k - 1] + (1 - correlation**2) ** 0.5 * normal[k]
        values = 0.5 * data + shift + spread * 0.5**0.5 * normal
        return values if correlation is None else values[None]

    def noisy(vector, source):
        return vector + torch.randn(2, generator=source, dtype=torch.float64)

    def prior(source):
        return torch.randn(2, generator=source, dtype=torch.float64)

    return simulated_ranks(prior, noisy, posterior, simulations=simulations, draws=draws, seed=seed)


def test_the_right_posterior_passes_as_often_as_it_should():
    p = torch.tensor([simulated(simulations=60, draws=15, seed=seed).p_value for seed in range(30)])
    assert int((p < 0.05).sum()) <= stats.binom(30, 0.05).ppf(0.999)
    assert float(p.median()) > 0.2


@pytest.mark.parametrize("wrong", [{"spread": 0.7}, {"spread": 1.4}, {"shift": 0.3}], ids=["narrow", "wide", "biased"])
def test_wrong_posteriors_fail_with_their_shape(wrong):
    ranks = simulated(**wrong)
    assert ranks.p_value < 0.005
    assert simulated().p_value > 0.05
    counts = ranks.histogram(4).counts[0].tolist()
    if "shift" in wrong:
        assert counts[0] > counts[3]
    else:
        assert (counts[0] + counts[3] > counts[1] + counts[2]) == (wrong["spread"] < 1)


def test_chains_are_thinned_until_they_pass():
    assert simulated(correlation=0.8, simulations=40, draws=15).p_value > 0.01
    with pytest.raises(ConvergenceError, match="independent"):
        simulated(correlation=0.9995, simulations=2, draws=15)


def test_histogram_and_its_band():
    generator = torch.Generator().manual_seed(0)
    outside = 0
    for _ in range(300):
        ranks = Ranks(torch.randint(32, (200, 1), generator=generator), 31)
        found = ranks.histogram(8, confidence=0.9)
        assert int(found.counts.sum()) == 200 and len(found.edges) == 9
        outside += int(((found.counts < found.lower) | (found.counts > found.upper)).any())
    assert outside <= stats.binom(300, 0.1).ppf(0.999)
    law = stats.binom(200, 1 / 8)
    assert law.cdf(found.lower - 1) <= 0.1 / 16 and law.sf(found.upper) <= 0.1 / 16
    assert Ranks(ranks.ranks, 31).histogram().counts.shape == (1, 8)
    assert "p =" in str(ranks)


def test_quantities_are_ranked_in_place_of_parameters():
    prior = [lambda source: torch.randn(2, generator=source, dtype=torch.float64)]
    ranks = simulated_ranks(
        prior[0],
        lambda vector, source: None,
        lambda data, source: torch.randn(15, 2, generator=source, dtype=torch.float64),
        simulations=100,
        draws=15,
        quantities=lambda vector: torch.stack([vector.sum(), vector.square().sum(), vector[0] * vector[1]]),
        seed=1,
    )
    assert ranks.ranks.shape == (100, 3) and int(ranks.ranks.max()) <= 15
    assert ranks.p_value > 0.01


def test_bad_input_is_named(normal):
    ranks = Ranks(torch.zeros(20, 1, dtype=torch.long), 15)
    assert float(ranks.p_values[0]) == pytest.approx(1 / 4001)
    with pytest.raises(DataError, match="bins"):
        ranks.histogram(5)
    with pytest.raises(ShapeError, match="independent draws"):
        simulated_ranks(lambda s: normal(2), lambda v, s: v, lambda d, s: normal(4, 2), draws=5, seed=0)
    with pytest.raises(ShapeError, match="parameters"):
        simulated_ranks(lambda s: normal(2), lambda v, s: v, lambda d, s: normal(5, 3), draws=5, seed=0)
    assert independent_draws(normal(2, 200, 3), 20).shape == (20, 3)
