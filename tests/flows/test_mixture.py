"""Ensembles: the density of their draws, strata, robust weights, and the two parts of an error."""

import math

import pytest
import torch

from bayesmol.errors import DataError, ShapeError
from bayesmol.flows.mixture import Ensemble, disagreement
from bayesmol.flows.proposal import Proposal
from bayesmol.inference.importance import effective_size


@pytest.fixture
def pair(affine):
    return Ensemble([affine([-3.0], [math.log(0.5)]), affine([2.0], [math.log(0.5)])], torch.tensor([1.0, 3.0]))


@pytest.fixture
def broad(gaussian):
    """The same energy in one dimension: mean 0, deviation 3."""
    return type(gaussian)([0.0], [3.0])


def first(x):
    return x[:, 0]


def test_it_is_the_mixture(pair):
    assert isinstance(pair, Proposal)
    assert len(pair) == 2
    x = torch.linspace(-6, 6, 4001, dtype=torch.float64).unsqueeze(1)
    laws = torch.distributions.Normal(torch.tensor([-3.0, 2.0]).double(), torch.tensor(0.5).double())
    truth = (laws.log_prob(x).exp() @ torch.tensor([0.25, 0.75]).double()).log()
    torch.testing.assert_close(pair.log_prob(x), truth)
    assert float(torch.trapezoid(pair.log_prob(x).exp(), x[:, 0]).detach()) == pytest.approx(1, abs=2e-3)


def test_draws_are_stratified_and_carry_their_density(pair):
    x, log_q = pair.sample(1002, seed=0)
    torch.testing.assert_close(log_q, pair.log_prob(x))
    assert 250 <= int((x < -0.5).sum()) <= 252
    assert not bool((x[:250] < -0.5).all())
    again, _ = pair.sample(1002, seed=0)
    torch.testing.assert_close(again, x)


def test_rounding_is_right_in_the_mean(pair):
    counts = torch.stack([pair.allotted(2, seed=seed) for seed in range(1000)]).double()
    assert bool((counts.sum(1) == 2).all())
    torch.testing.assert_close(counts.mean(0), torch.tensor([0.5, 1.5]).double(), rtol=0, atol=0.05)


def test_weights_are_no_worse_than_with_members_alone(affine, broad):
    """Two halves of a wide target: alone each is useless, together they are good."""
    members = [affine([-1.5], [math.log(2.6)]), affine([1.5], [math.log(2.6)])]
    ensemble = Ensemble(members)
    fractions = []
    for proposal in (*members, ensemble):
        x, log_q = proposal.sample(4000, seed=1)
        fractions.append(effective_size((-broad.reduced_energy(x) - log_q).detach()).fraction)
    assert fractions[2] > 0.95 > 0.8 > max(fractions[:2])


def test_flows_that_differ_have_an_epistemic_error(affine):
    """Means of the members have the variance 0.04 + 1/n."""
    source = torch.Generator().manual_seed(0)
    means = 0.2 * torch.randn(200, generator=source, dtype=torch.float64)
    found = disagreement(Ensemble([affine([m], [0.0]) for m in means.tolist()]), first, size=20_000, seed=3)
    assert found.epistemic == pytest.approx(float(means.var()), rel=0.15)
    assert found.sampling == pytest.approx(0.01, rel=0.05)
    assert found.p_value < 1e-6
    assert abs(float(found.together.value - means.mean())) < 3 * float(found.together.standard_error)
    assert float(found.together.standard_error) == pytest.approx(20_000**-0.5, rel=0.05)


def test_reweighted_members_agree(affine, broad):
    members = [affine([m], [math.log(3.3)]) for m in (-0.5, 0.0, 0.4)]
    found = disagreement(Ensemble(members), first, target=broad, size=6000, seed=3)
    assert found.p_value > 0.05
    assert found.epistemic < 4 * found.sampling
    assert abs(float(found.together.value)) < 3 * float(found.together.standard_error)


def test_a_member_that_misses_a_mode_is_noticed(affine):
    class Two:
        dimension = 1

        def reduced_energy(self, x):
            return -torch.logaddexp(-(x[:, 0] - 6).square() / 2, -(x[:, 0] + 6).square() / 2)

    members = [affine([-6.0], [0.1]), affine([6.0], [0.1])]
    found = disagreement(Ensemble(members), first, target=Two(), size=4000, seed=0)
    assert found.epistemic > 30
    assert found.p_value < 1e-6
    assert abs(float(found.together.value)) < 3 * float(found.together.standard_error)


def test_agreement_has_uniform_p_values(affine):
    ensemble = Ensemble([affine([0.0], [0.0])] * 4)
    values = torch.tensor([disagreement(ensemble, first, size=200, seed=s).p_value for s in range(100)])
    assert 0.02 <= float((values < 0.1).double().mean()) <= 0.22


def test_bad_input(affine, pair):
    with pytest.raises(DataError, match="members"):
        Ensemble([])
    with pytest.raises(DataError, match="dimension"):
        Ensemble([affine([0.0], [0.0]), affine([0.0, 0.0], [0.0, 0.0])])
    with pytest.raises(ShapeError, match="shares"):
        Ensemble([affine([0.0], [0.0])], torch.tensor([-1.0]))
    with pytest.raises(DataError, match="two members"):
        disagreement(Ensemble([affine([0.0], [0.0])]), first, seed=0)
    with pytest.raises(ShapeError, match="observable"):
        disagreement(pair, lambda x: x, seed=0, size=100)
