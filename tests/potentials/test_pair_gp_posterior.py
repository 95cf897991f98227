"""The fitted pair potential keeps the contract of potentials."""

import pytest
import torch

import bayesmol as bm
from bayesmol.errors import DataError, FormatError
from bayesmol.potentials.pair_gp import PairGP
from bayesmol.potentials.pair_gp_posterior import PairGPPotential


@pytest.fixture(scope="module")
def frames():
    return bm.data.load("rmd17/ethanol/train")[:20]


@pytest.fixture(scope="module")
def fitted(frames):
    return PairGP(cutoffs=(3.0,), length_scales=(0.5,)).fit(frames[:10])


def test_contract(fitted, frames):
    bm.testing.check_potential(fitted, frames[10:12])


def test_functions_are_those_of_a_pair(fitted):
    from ase import Atoms

    distances = torch.tensor([1.0, 1.4, 2.2], dtype=torch.float64)
    found = fitted.functions(distances, 6, 8)
    pairs = [Atoms("CO", [[0, 0, 0], [0, 0, d]]) for d in (4.0, *distances.tolist())]
    energies = fitted.surface(pairs).energies
    repulsion = fitted.model.baseline(bm.data.Structures.from_ase(pairs))[0]
    torch.testing.assert_close((energies - repulsion)[1:] - (energies - repulsion)[0], found.mean)
    other = fitted.functions(distances, 8, 6)
    torch.testing.assert_close(found.covariance, other.covariance)
    torch.testing.assert_close(found.covariance.diagonal(), found.variance)
    with pytest.raises(DataError, match="element"):
        fitted.functions(distances, 6, 7)


def test_uncertainty_returns_where_no_pair_was(fitted):
    """O–O was never seen: its function has the variance of the prior."""
    distances = torch.tensor([1.5], dtype=torch.float64)
    rows = fitted.pair_rows(distances, 8, 8)
    torch.testing.assert_close(fitted.functions(distances, 8, 8).variance, rows.square().sum(1))
    seen = fitted.functions(distances, 6, 6).variance / fitted.pair_rows(distances, 6, 6).square().sum(1)
    assert float(seen) < 0.5


def test_surface_is_the_mean(fitted, frames):
    found, wanted = fitted.surface(frames[10:13]), fitted.predict(frames[10:13])
    torch.testing.assert_close(found.energies, wanted.energy.mean)
    torch.testing.assert_close(found.forces, wanted.forces.mean)
    assert found.virials is None


def test_update_is_a_fit_of_all(fitted, frames):
    more = fitted.update(frames[10:20])
    assert isinstance(more, PairGPPotential) and bool(more.trained(frames.structures).all())
    assert float(more.predict(frames[:3]).forces.epistemic.variance.mean()) < float(
        fitted.predict(frames[:3]).forces.epistemic.variance.mean()
    )


def test_certify(fitted):
    calibration = bm.data.load("rmd17/ethanol/test")[:60]
    certified = bm.certify(fitted, calibration, level=0.8, domain=bm.applicability.Domain(level=0.2))
    assert certified.predict(calibration[:2]).inside.shape == (2,)
    fitted.leave_one_out()


def test_a_damaged_state_is_refused(fitted):
    header, arrays = fitted.state()
    with pytest.raises(FormatError, match="pair potential"):
        PairGPPotential.from_state(header, {k: v for k, v in arrays.items() if k != "log_prior"})
    with pytest.raises(FormatError, match="pair potential"):
        PairGPPotential.from_state({**header, "kernel": {"size": 3}}, arrays)
