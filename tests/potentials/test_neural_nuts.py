"""Draws by the no-U-turn sampler as networks: the prior where nothing is known, and what cannot be sampled."""

from dataclasses import replace

import pytest
import torch

import bayesmol as bm
from bayesmol.errors import ConvergenceError, DataError
from bayesmol.potentials.network_atomic import Atomic
from bayesmol.potentials.network_equivariant import Equivariant
from bayesmol.potentials.neural import NeuralPotential
from bayesmol.potentials.neural_density import is_sampled
from bayesmol.potentials.neural_member import moments
from bayesmol.potentials.neural_nuts import NoUTurn
from bayesmol.potentials.neural_weights import WeightPosterior
from bayesmol.potentials.training import Training
from bayesmol.representation.radial import RadialBasis

SMALL = Atomic(basis=RadialBasis(cutoff=3.5, size=5), degree=1, correlation=2, channels=2, hidden=(3,), width=2)
FEW = NoUTurn(warmup=20, draws=20, chains=2, depth=5, kept=4, stiff=8, limit=None, watched=2)


def trained(architecture=SMALL):
    frames = bm.data.load("rmd17/ethanol").split(4, 3)
    return NeuralPotential(architecture, training=Training(epochs=2), dtype=torch.float64).run(*frames)


@pytest.fixture(scope="module")
def run():
    return trained()


def test_other_architectures_are_refused():
    basis = RadialBasis(cutoff=3.5, size=4)
    run = trained(Equivariant(basis=basis, channels=3, degree=1, hidden=0, layers=1, radial=3, width=3))
    with pytest.raises(DataError, match="atomic"):
        NoUTurn().members(run)


def test_no_more_is_kept_than_drawn():
    with pytest.raises(DataError, match="kept"):
        NoUTurn(draws=4, chains=2, kept=9)
    with pytest.raises(DataError, match="kept"):
        NoUTurn(kept=1)
    with pytest.raises(DataError, match="watched"):
        NoUTurn(watched=0)


@pytest.mark.slow
def test_members_are_networks_that_agree_with_the_labels_about_as_well_as_the_trained_one(run):
    one, same, other = (FEW.members(part) for part in (run, run, replace(run, seed=3)))
    assert len(one) == 4 and all(member.root.shape[1] == 0 for member in one)
    assert all(torch.equal(m.energy.network.mixing, run.energy.network.mixing) for m in one)
    heads = [torch.stack([m.energy.head for m in members]) for members in (one, same, other)]
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])
    assert float(moments(one, run.labelled.structures)["forces"].variance.min()) > 0
    posterior = WeightPosterior.of(run, is_sampled)
    labels = 4 + 4 * 27
    for member in one:
        vector = posterior.flattened.vector(member.energy)
        square = -2 * float(posterior.target.scaled_log_likelihood(vector, torch.arange(4)).detach())
        assert square < 3 * labels


@pytest.mark.slow
def test_without_information_the_draws_are_those_of_the_prior():
    run = trained()
    run.__dict__["noise"] = (1e9, 1e9)
    posterior = WeightPosterior.of(run, is_sampled)
    chains = replace(FEW, warmup=100, draws=400, kept=100).weights(run, posterior)
    found = chains.values.flatten(0, 1)
    error = 1 / chains.effective_sample_size.clamp(1, 800).sqrt()
    assert float((found.mean(0) / error).abs().max()) < 5
    assert abs(float(found.var(0).mean()) - 1) < 0.1


@pytest.mark.slow
def test_chains_that_do_not_agree_are_an_error(run):
    with pytest.raises(ConvergenceError, match="R-hat"):
        replace(FEW, warmup=2, draws=6, depth=1, turn=1.0, limit=1.001).members(run)
