"""The density on constant invariants: that of the network itself, in every direction and for every label."""

import copy
from dataclasses import replace

import pytest
import torch

import bayesmol as bm
from bayesmol.errors import DataError
from bayesmol.potentials.network_atomic import Atomic
from bayesmol.potentials.network_schnet import SchNet
from bayesmol.potentials.neural import NeuralPotential
from bayesmol.potentials.neural_density import is_sampled, network_rows, stiff_directions, weight_density
from bayesmol.potentials.neural_weights import WeightPosterior, residuals
from bayesmol.potentials.training import Training
from bayesmol.representation.radial import RadialBasis

SMALL = Atomic(basis=RadialBasis(cutoff=3.5, size=5), degree=1, correlation=3, channels=2, hidden=(4,), width=3)
NONE = {"widths": torch.zeros(0).double()}


@pytest.fixture(scope="module")
def run():
    frames = bm.data.load("rmd17/ethanol").split(4, 3)
    spec = NeuralPotential(SMALL, training=Training(epochs=2, batch=2), dtype=torch.float64)
    return spec.run(*frames)


@pytest.fixture(scope="module")
def posterior(run):
    return WeightPosterior.of(run, is_sampled)


@pytest.fixture(scope="module")
def known(run, posterior):
    """The density, its arrays without stiff directions, and some vectors in units of the prior deviations."""
    density, data = weight_density(run, posterior, run.data)
    source = torch.Generator().manual_seed(1)
    vectors = torch.randn(3, len(posterior.start), generator=source, dtype=torch.float64)
    return density, data | NONE | {"directions": torch.zeros(len(posterior.start), 0).double()}, vectors


def test_it_is_the_density_of_the_other_samplers_up_to_a_constant(posterior, known):
    density, data, vectors = known
    scale = posterior.target.prior.scale
    gaps = [density(v, data) - posterior.target.log_density(v * scale) for v in vectors]
    torch.testing.assert_close(gaps[0], gaps[1], rtol=0, atol=1e-8)
    torch.testing.assert_close(gaps[0], gaps[2], rtol=0, atol=1e-8)


def test_energies_and_forces_are_those_of_the_network(run, posterior, known):
    density, data, vectors = known
    for vector in vectors:
        (member,) = posterior.drawn((vector * posterior.target.prior.scale)[None])
        found = member.energy(run.data.environment)
        energies, forces = density.observed(vector, data)
        torch.testing.assert_close(energies, found.energy[:, 0].detach(), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(forces.flatten(), found.forces[:, 0].detach(), rtol=0, atol=1e-10)


def test_two_hidden_layers_and_other_widths():
    spec = replace(SMALL, hidden=(4, 5), width=2)
    frames = bm.data.load("rmd17/ethanol").split(2, 2)
    run = NeuralPotential(spec, training=Training(epochs=1), dtype=torch.float64).run(*frames)
    posterior = WeightPosterior.of(run, is_sampled)
    density, data = weight_density(run, posterior, run.data)
    energies, forces = density.observed(posterior.start / posterior.target.prior.scale, data)
    found = run.energy(run.data.environment)
    torch.testing.assert_close(energies, found.energy[:, 0].detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(forces.flatten(), found.forces[:, 0].detach(), rtol=0, atol=1e-10)


def test_missing_labels_count_for_nothing(run, posterior, known):
    density, data, vectors = known
    partial = replace(run.data, has_energies=torch.zeros(4).double(), has_forces=torch.tensor([1.0, 0, 0, 0]).double())
    _, fewer = weight_density(run, posterior, partial)
    energy, force = density.residuals(vectors[0], fewer)
    whole = density.residuals(vectors[0], data)[1]
    assert bool((energy == 0).all()) and bool((force[1:] == 0).all())
    torch.testing.assert_close(force[0], whole[0])


def test_stiff_directions_are_those_of_the_jacobian(run, posterior, known):
    density, data, _ = known
    place = posterior.start / posterior.target.prior.scale
    found = stiff_directions(density, place, data, 12, seed=0)

    def errors(white):
        return residuals(run, posterior.flattened, white * posterior.target.prior.scale, torch.arange(4))

    _, values, right = torch.linalg.svd(torch.autograd.functional.jacobian(errors, place), full_matrices=False)
    torch.testing.assert_close(found["widths"][:4], (1 + values[:4].square()).rsqrt(), rtol=1e-3, atol=0)
    overlaps = (right[:4] @ found["directions"]).square().sum(1)
    assert float(overlaps.min()) > 0.99
    unit = found["directions"].T @ found["directions"]
    torch.testing.assert_close(unit, torch.eye(12).to(unit), rtol=0, atol=1e-10)


def test_widening_shrinks_the_stiff_directions_alone(posterior, known):
    density, data, vectors = known
    stiff = stiff_directions(density, posterior.start / posterior.target.prior.scale, data, 5, seed=0)
    found = density.widened(vectors, data | stiff)
    torch.testing.assert_close(found @ stiff["directions"], vectors @ stiff["directions"] * stiff["widths"])
    rest = torch.eye(len(posterior.start)).double() - stiff["directions"] @ stiff["directions"].T
    torch.testing.assert_close(found @ rest, vectors @ rest)
    torch.testing.assert_close(density(vectors[0], data | stiff), density(found[0], data))


def test_only_the_mixing_stays(run, posterior):
    left = {name for name, _ in run.energy.named_parameters()} - set(posterior.flattened.names)
    assert left == {"network.mixing"}


def test_other_architectures_and_sizes_are_refused(run):
    with pytest.raises(DataError, match="atomic"):
        network_rows(SchNet().network((1, 6, 8), seed=0), run.data)
    other = copy.copy(run.data.counts)
    other[0] = 8
    with pytest.raises(DataError, match="one number of atoms"):
        network_rows(run.energy.network, replace(run.data, counts=other))
