"""Stochastic flows: Jarzynski's equality, weighted means, training, and half the divergence of RealNVP."""

import math

import pytest
import torch
from nflows.transforms import CompositeTransform

from bayesmol.errors import ApplicabilityError, DataError
from bayesmol.flows.bases import GaussianUniform
from bayesmol.flows.conditioners import reproducible
from bayesmol.flows.couplings import Coupling, Couplings
from bayesmol.flows.elementwise import Shifts
from bayesmol.flows.flow import Flow
from bayesmol.flows.model_densities import double_well
from bayesmol.flows.moves import Langevin, Metropolis
from bayesmol.flows.objectives import ReverseKL
from bayesmol.flows.optimisation import Optimisation
from bayesmol.flows.stochastic import PathDivergence, Stochastic, StochasticFlow
from bayesmol.inference.importance import log_partition

BASE = GaussianUniform(torch.zeros(2, dtype=torch.bool))
MOVES = {
    "langevin": lambda k: Langevin(k / 5, steps=2, step=0.05),
    "metropolis": lambda k: Metropolis(k / 5, steps=2, step=0.6),
}


@pytest.mark.parametrize("kind", MOVES)
@pytest.mark.parametrize("mapped", [False, True])
def test_jarzynski(kind, mapped, gaussian, affine):
    """<exp(−W)> = Z = 2π σ₁ σ₂ within two standard errors, with any maps between; weights have a finite variance."""
    target = type(gaussian)([0.5, -1.0], [0.7, 1.2])
    layers = [MOVES[kind](k) for k in range(1, 6)]
    if mapped:
        layers.insert(2, affine([0.2, -0.4], [-0.1, 0.2]).transform)
    flow = StochasticFlow(BASE, target, layers).double()
    x, log_w = flow.weighted(6000, seed=2)
    found = log_partition(log_w)
    error = float(found.value) - math.log(2 * math.pi * 0.7 * 1.2)
    assert abs(error) < 2 * float(found.standard_error) < 0.1
    weights = log_w.softmax(0)
    means = weights @ x
    errors = (weights[:, None] * (x - means)).square().sum(0).sqrt()
    assert bool(((means - target.mean).abs() < 3 * errors).all())


def test_moves_make_the_weights_of_annealing_better(gaussian):
    bare = StochasticFlow(BASE, gaussian, []).double()
    annealed = StochasticFlow(BASE, gaussian, [Metropolis(k / 8, steps=2, step=0.8) for k in range(1, 8)]).double()
    spread = [float(flow.weighted(2000, seed=0)[1].var()) for flow in (bare, annealed)]
    assert spread[1] < 0.7 * spread[0]


def test_draws_are_those_of_a_proposal(gaussian):
    flow = StochasticFlow(BASE, gaussian, [Metropolis(1.0)]).double()
    x, log_q = flow.sample(100, seed=0)
    again, log_w = flow.weighted(100, seed=0)
    torch.testing.assert_close(again, x)
    torch.testing.assert_close(log_w, -gaussian.reduced_energy(x) - log_q)
    assert not x.requires_grad
    assert flow.evaluations == 7
    with pytest.raises(ApplicabilityError, match="density"):
        flow.log_prob(x)
    with pytest.raises(ApplicabilityError, match="density"):
        flow.push(x)


@pytest.mark.parametrize("moves", ["metropolis", "langevin"])
def test_it_is_trained(moves, gaussian):
    step = {"metropolis": 0.2, "langevin": 0.02}[moves]
    couplings = Couplings(layers=1, width=8, bins=4)
    architecture = Stochastic(blocks=2, couplings=couplings, moves=moves, steps=1, step=step)
    flow = architecture.build(torch.zeros(2, dtype=torch.bool), gaussian, seed=0)
    before = -float(flow.weighted(4000, seed=1)[1].mean())
    training = PathDivergence(Optimisation(steps=120, batch=128, rate=1e-2)).fit(flow, gaussian, seed=0)
    after = -float(flow.weighted(4000, seed=1)[1].mean())
    least = -math.log(2 * math.pi * 0.7 * 1.5)
    assert least - 0.02 < after < least + 0.4 * (before - least)
    assert training.energy_evaluations == 120 * 128 * flow.evaluations
    assert training.skipped == 0


def test_bad_input(gaussian, affine):
    with pytest.raises(DataError, match="target"):
        StochasticFlow(GaussianUniform(torch.zeros(3, dtype=torch.bool)), gaussian, [])
    with pytest.raises(DataError, match="moves"):
        Stochastic(moves="walk")
    with pytest.raises(DataError, match="stochastic"):
        PathDivergence().fit(affine([0.0, 0.0], [0.0, 0.0]), gaussian, seed=0)


def real_nvp(layers, width, seed):
    """Affine couplings, the two coordinates in turn."""
    circular = torch.zeros(2, dtype=torch.bool)
    with reproducible(seed):
        halves = [torch.tensor([k % 2 == 0, k % 2 == 1]) for k in range(layers)]
        return [Coupling(h, circular, Shifts(circular[h]), width=width, layers=2, context=0) for h in halves]


def cell_divergence(x, log_density):
    """KL of draws to a density in the plane, over cells of width 0.1: below that of the densities, of their cells."""
    edges = torch.linspace(-3, 3, 61, dtype=torch.float64)
    fine = torch.linspace(-3, 3, 301, dtype=torch.float64)[:-1] + 0.01
    rows = torch.cartesian_prod(fine, fine)
    truth = log_density(rows).softmax(0).reshape(60, 5, 60, 5).sum((1, 3))
    found = torch.histogramdd(x.double().contiguous(), [edges, edges]).hist / len(x)
    return float(torch.xlogy(found, found).sum() - torch.xlogy(found, truth).sum())


@pytest.mark.slow
def test_half_the_divergence_of_real_nvp():
    """Two equal wells: moves after the same couplings, with one number more, take out the bridge between the wells."""
    density = double_well(tilt=0.0)
    layers = real_nvp(4, 24, seed=1)
    plain = Flow(BASE, CompositeTransform(layers[::-1]))
    ReverseKL(Optimisation(steps=250, batch=128, rate=5e-3)).fit(plain, density, seed=0)
    stochastic = StochasticFlow(BASE, density, [*layers, Metropolis(1.0, steps=20, step=0.4)])
    divergences, weights = [], []
    for flow in (plain, stochastic):
        with torch.no_grad():
            x, log_q = flow.sample(100_000, seed=5)
        weights.append(-density.reduced_energy(x) - log_q)
        divergences.append(cell_divergence(x, lambda rows: -density.reduced_energy(rows)))
    assert divergences[1] <= divergences[0] / 2, divergences
    # Moves in the energy of the target itself change no weight: at the same latent rows they are those of the maps.
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-3, atol=1e-2)
