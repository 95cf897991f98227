from dataclasses import replace

import pytest
import torch

import bayesmol as bm
from bayesmol.errors import DataError
from bayesmol.potentials.network_atomic import Atomic
from bayesmol.potentials.neural import NeuralPotential
from bayesmol.potentials.training import Training
from bayesmol.representation.radial import RadialBasis
from bayesmol.testing import check_potential


def test_it_keeps_the_contract_of_potentials(neural, ethanol):
    check_potential(neural, ethanol[2].structures[:3])


def test_covariance_turns_with_the_structure(neural, ethanol):
    structures = ethanol[2].structures[:1]
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    again = replace(structures, positions=-structures.positions @ turn.T)
    one, two = (neural.predict(s, covariance=True).forces for s in (structures, again))
    whole = torch.block_diag(*[-turn] * 9)
    torch.testing.assert_close(two.mean.flatten(), whole @ one.mean.flatten(), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(two.covariance[0], whole @ one.covariance[0] @ whole.T, atol=1e-10, rtol=1e-9)


def test_covariance_has_the_variance_and_no_net_force(neural, ethanol):
    forces = neural.predict(ethanol[2].structures[:2], covariance=True).forces
    block = forces.epistemic.covariance[0]
    torch.testing.assert_close(block.diagonal(), forces.epistemic.variance[:9].flatten())
    assert block.reshape(9, 3, 9, 3).sum(0).abs().max() < 1e-10


def test_surface_is_the_mean(neural, ethanol):
    structures = ethanol[2].structures[:4]
    prediction, surface = neural.predict(structures), neural.surface(structures)
    torch.testing.assert_close(surface.energies, prediction.energy.mean)
    torch.testing.assert_close(surface.forces, prediction.forces.mean)


def test_features_and_factors_are_roots_of_the_covariance(neural, ethanol):
    structures = ethanol[2].structures[:3]
    prediction = neural.predict(structures)
    features = neural.features(structures)
    torch.testing.assert_close(features.square().sum(1), prediction.energy.epistemic.variance)
    factor = torch.cat(neural.force_factor(structures))
    torch.testing.assert_close(factor.square().sum(1).reshape(-1, 3), prediction.forces.epistemic.variance)


def test_deviation_gradient_is_a_derivative(neural, ethanol):
    structures, step = ethanol[2].structures[:1], 1e-4
    deviation, gradient = neural.deviation_gradient(structures)
    ends = []
    for sign in (1, -1):
        positions = structures.positions.clone()
        positions[3, 1] += sign * step
        ends.append(neural.deviation_gradient(replace(structures, positions=positions))[0])
    torch.testing.assert_close(gradient[3, 1], (ends[0] - ends[1])[0] / (2 * step), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(deviation, neural.predict(structures).energy.epistemic.stddev)


def test_draws_are_certain_and_spread_as_the_posterior(neural, ethanol):
    structures = ethanol[2].structures[:2]
    drawn = neural.draws(60, seed=0)
    energies = torch.stack([one.surface(structures).energies for one in drawn])
    assert float(drawn[0].predict(structures).energy.epistemic.variance.max()) == 0
    spread = energies.std(0) * neural.scales.energy**0.5 / neural.predict(structures).energy.epistemic.stddev
    assert bool(((spread > 0.7) & (spread < 1.35)).all())


def test_strange_structures_are_infinitely_strange(neural, ethanol):
    structures = ethanol[2].structures[:3]
    close = structures.positions.clone()
    close[1] = close[0] + torch.tensor([0.0, 0.0, 0.4])
    other = structures.species.clone()
    other[9] = 7
    scores = neural.strangeness(replace(structures, positions=close, species=other))
    assert scores.isinf().tolist() == [True, True, False]
    torch.testing.assert_close(
        neural.strangeness(structures, neural.predict(structures)), neural.strangeness(structures)
    )


def test_trained_frames_are_known(neural, ethanol):
    assert bool(neural.trained(ethanol[0].structures).all()) and bool(neural.trained(ethanol[1].structures[:6]).all())
    assert not bool(neural.trained(ethanol[2].structures).any())


def test_certify_needs_frames_that_were_kept_apart(neural, ethanol):
    certified = bm.certify(neural, ethanol[1][6:40], domain=bm.applicability.Domain(level=0.2))
    assert certified.predict(ethanol[2].structures).inside is not None
    with pytest.raises(DataError, match="keep some frames apart"):
        bm.certify(neural)
    with pytest.raises(DataError, match="not used for training"):
        bm.certify(neural, ethanol[1])


@pytest.mark.parametrize("posterior", ["laplace", "shallow-ensemble"])
def test_certified_intervals_cover(posterior, apart, assert_covered):
    small = Atomic(basis=RadialBasis(cutoff=3.5, size=5), degree=1, correlation=3, channels=4, hidden=(8,), width=8)
    spec = NeuralPotential(small, posterior, Training(epochs=20))
    assert_covered(spec.fit(apart[0][:22], apart[0][22:], seed=0))


def test_unknown_elements_raise(neural, ethanol):
    structures = ethanol[2].structures[:1]
    with pytest.raises(DataError, match="elements"):
        neural.predict(replace(structures, species=torch.full((9,), 7)))


def test_calculator(neural, ethanol):
    atoms = ethanol[2].structures[0].to_ase()[0]
    atoms.calc = neural.calculator()
    assert atoms.get_potential_energy() == pytest.approx(float(neural.predict(atoms).energy.mean))


@pytest.mark.parametrize("batch", ["logdet", "lcmd"])
def test_batches_are_selected_as_with_any_potential(neural, ethanol, batch):
    chosen = bm.acquisition.select(neural, ethanol[2].structures, 4, batch=batch, seed=0)
    assert len(set(chosen.indices.tolist())) == 4
