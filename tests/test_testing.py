"""The contract suites pass on a correct posterior and a correct potential, and each broken law is caught."""

import math

import pytest
import torch

from bayesmol.data.structures import Structures
from bayesmol.posterior import Gaussian, Prediction
from bayesmol.representation.neighbours import neighbours
from bayesmol.testing import assert_calibrated, assert_invariant, check_posterior, check_potential

CUTOFF, RATES, NOISE = 4.0, torch.tensor([0.5, 1.0], dtype=torch.float64), 1e-3


class Pairs:
    """Bayesian pair potential: E = Σ w_k φ_k(r), φ_k = (1 - r²/r_c²)³ exp(-λ_k r), with a normal posterior of w."""

    def __init__(self, mean, root):
        self.mean, self.root = mean, root

    def features(self, structures):
        """Features of the energies, the forces, and the stresses; the last axis is k."""
        edges = neighbours(structures, CUTOFF)
        r = edges.vectors.norm(dim=1, keepdim=True)
        tail = (1 - (r / CUTOFF) ** 2).clamp_min(0)
        value = tail**3 * (-RATES * r).exp()
        slope = -RATES * value - 6 * r / CUTOFF**2 * tail**2 * (-RATES * r).exp()
        owner = structures.structure_index[edges.first]
        pull = (edges.vectors / r)[:, :, None] * slope[:, None, :]
        energy = value.new_zeros(len(structures), 2).index_add_(0, owner, value / 2)
        force = value.new_zeros(len(structures.species), 3, 2).index_add_(0, edges.first, pull)
        virial = value.new_zeros(len(structures), 3, 3, 2)
        virial.index_add_(0, owner, edges.vectors[:, :, None, None] * pull[:, None] / 2)
        return energy, force, virial

    def predict(self, structures, *, covariance=False):
        energy, force, virial = self.features(structures)
        blocks = None
        if covariance:
            rows = [f.flatten(0, 1) @ self.root for f in force.split(structures.counts.tolist())]
            blocks = tuple(f @ f.T + NOISE * torch.eye(len(f), dtype=torch.float64) for f in rows)
        periodic = bool(structures.pbc.all())
        volume = torch.linalg.det(structures.cell).abs()[:, None, None] if periodic else None
        return Prediction(
            energy=self.law(energy, "eV"),
            forces=self.law(force, "eV/Å", blocks),
            pointer=structures.pointer,
            stress=self.law(virial / volume[..., None], "eV/Å³") if periodic else None,
        )

    def law(self, features, unit, covariance=None):
        known = (features @ self.root).square().sum(-1)
        return Gaussian(features @ self.mean, known + NOISE, unit=unit, covariance=covariance, epistemic_variance=known)

    def state(self):
        return {"kind": "pairs"}, {"mean": self.mean, "root": self.root}

    @classmethod
    def from_state(cls, header, arrays):
        assert header == {"kind": "pairs"}
        return cls(**arrays)


class Pulled(Pairs):
    """An outer field: not invariant."""

    def features(self, structures):
        energy, force, virial = super().features(structures)
        field = structures.positions.new_zeros(len(structures), 2)
        field[:, 0] = torch.zeros(len(structures), dtype=torch.float64).index_add_(
            0, structures.structure_index, structures.positions[:, 0]
        )
        return energy + field, force, virial


class Pushed(Pairs):
    """Forces of the wrong sign."""

    def features(self, structures):
        energy, force, virial = super().features(structures)
        return energy, -force, virial


class Squeezed(Pairs):
    """Stress of the wrong sign."""

    def features(self, structures):
        energy, force, virial = super().features(structures)
        return energy, force, -virial


class Drifting(Pairs):
    """Forces that add up to something, though the energy is unchanged."""

    def features(self, structures):
        energy, force, virial = super().features(structures)
        return energy, force + 0.1 * force.abs().mean(), virial


class Normalised(Pairs):
    """Energies that depend on the other structures of the batch."""

    def features(self, structures):
        energy, force, virial = super().features(structures)
        return energy - energy.mean(0), force, virial


class Intensive(Pairs):
    """Energies that do not add up."""

    def features(self, structures):
        energy, force, virial = super().features(structures)
        return energy + 1, force, virial


class Forgetful(Pairs):
    """Saved in single precision."""

    def state(self):
        header, arrays = super().state()
        return header, {name: array.float().double() for name, array in arrays.items()}


class Tilted(Pairs):
    """Covariance that knows the axes of the laboratory."""

    def law(self, features, unit, covariance=None):
        if covariance is None:
            return super().law(features, unit)
        tilt = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
        blocks = tuple(b + torch.diag(tilt.repeat(len(b) // 3)) for b in covariance)
        variance = torch.cat([b.diagonal() for b in blocks]).reshape(features.shape[:-1])
        return Gaussian(features @ self.mean, variance, unit=unit, covariance=blocks)


class Certain(Pairs):
    """No variance at all."""

    def law(self, features, unit, covariance=None):
        return Gaussian(features @ self.mean, torch.zeros(features.shape[:-1]).double(), unit=unit)


@pytest.fixture
def make(normal):
    mean, root = normal(2), 0.1 * normal(2, 2)
    return lambda kind: kind(mean, root)


@pytest.fixture
def molecules(normal):
    grid = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]], dtype=torch.float64)
    positions = torch.cat([1.2 * grid, 1.3 * grid]) + 0.05 * normal(10, 3)
    species = torch.tensor([6, 1, 1, 8, 1] * 2)
    cell, pbc = torch.zeros(2, 3, 3).double(), torch.zeros(2, 3, dtype=torch.bool)
    return Structures(positions, species, torch.tensor([0, 5, 10]), cell, pbc)


@pytest.fixture
def crystals(molecules, normal):
    cell = 4.5 * torch.eye(3, dtype=torch.float64).expand(2, 3, 3) + 0.2 * normal(2, 3, 3)
    return Structures(molecules.positions, molecules.species, molecules.pointer, cell, ~molecules.pbc)


@pytest.mark.parametrize("sample", ["molecules", "crystals"])
def test_a_correct_potential_passes(make, sample, request):
    check_potential(make(Pairs), request.getfixturevalue(sample))


@pytest.mark.parametrize(
    ("kind", "law"),
    [
        (Pulled, "rotation"),
        (Pushed, "forces are −dE/dx"),
        (Squeezed, "stress is dE/dε/V"),
        (Drifting, "forces"),
        (Normalised, "batch independence"),
        (Intensive, "extensivity"),
        (Forgetful, "bit by bit"),
        (Tilted, "covariance rotates"),
        (Certain, "variance"),
    ],
)
def test_a_broken_law_is_caught(make, crystals, kind, law):
    with pytest.raises(AssertionError, match=law):
        check_potential(make(kind), crystals)


def test_a_potential_that_is_not_extensive_can_say_so(make, molecules):
    check_potential(make(Intensive), molecules, extensive=False)


@pytest.mark.parametrize(
    ("function", "law"),
    [
        (lambda s: s.positions[s.pointer[:-1]].norm(dim=1), "translation|rotation"),
        (lambda s: (s.positions[s.pointer[:-1]] - s.positions[s.pointer[:-1] + 1]).norm(dim=1), "exchange"),
        (lambda s: torch.linalg.det(s.positions[1:4] - s.positions[:1])[None].expand(2), "improper"),
    ],
    ids=["place", "order of like atoms", "handedness"],
)
def test_what_is_not_invariant_is_caught(molecules, function, law):
    with pytest.raises(AssertionError, match=law):
        assert_invariant(function, molecules, seed=1)


class Shifted(Gaussian):
    """Draws off the mean."""

    def sample(self, size, *, seed):
        return super().sample(size, seed=seed) + 1


class Narrow(Gaussian):
    """Draws that vary too little."""

    def sample(self, size, *, seed):
        return self.mean + (super().sample(size, seed=seed) - self.mean) / 2


class Careless(Gaussian):
    """Draws that ignore the seed."""

    def sample(self, size, *, seed):
        return super().sample(size, seed=int(torch.randint(1000, ())))


class Crooked(Gaussian):
    """Quantiles of another distribution."""

    def _quantile(self, p):
        return super()._quantile(p**2)


@pytest.mark.parametrize(
    ("kind", "law"), [(Shifted, "mean"), (Narrow, "variance"), (Careless, "seed"), (Crooked, "cdf")]
)
def test_a_broken_posterior_is_caught(normal, kind, law):
    with pytest.raises(AssertionError, match=law):
        check_posterior(kind(normal(3), 1 + normal(3).square(), unit="eV"))


def test_the_band_is_the_exact_binomial_one():
    for hits in (82, 90, 97):  # P(X ≤ 81) = 0.0046 and P(X ≥ 98) = 0.0019 are below half a per cent, the next are not
        assert_calibrated(hits, 100, 0.9)
    for hits in (81, 98):
        with pytest.raises(AssertionError, match="of 100 inside"):
            assert_calibrated(hits, 100, 0.9)


def test_a_calibration_set_widens_the_band():
    with pytest.raises(AssertionError):
        assert_calibrated(8400, 10000, 0.9)
    assert_calibrated(8400, 10000, 0.9, calibration=100)
    with pytest.raises(AssertionError):
        assert_calibrated(6000, 10000, 0.9, calibration=100)
    with pytest.raises(AssertionError, match="no interval"):
        assert_calibrated(99, 100, 0.99, calibration=50)


def test_the_band_holds_for_conformal_coverage(source):
    """Coverage of rank intervals of 50 uniform scores is inside the band as often as the confidence says."""
    rank, inside = math.ceil(51 * 0.9), 0
    for _ in range(300):
        threshold = torch.rand(50, generator=source).sort().values[rank - 1]
        hits = int((torch.rand(200, generator=source) <= threshold).sum())
        try:
            assert_calibrated(hits, 200, 0.9, confidence=0.9, calibration=50)
            inside += 1
        except AssertionError:
            continue
    assert_calibrated(inside, 300, 0.91, confidence=0.999)
