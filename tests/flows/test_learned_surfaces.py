from types import SimpleNamespace

import pytest
import torch

from bayesmol.data import Structures
from bayesmol.errors import DataError
from bayesmol.flows.learned_surfaces import energy_surfaces, mean_surface
from bayesmol.inference.conjugate import LinearPosterior
from bayesmol.posterior import Gaussian, Mixture, Prediction


def frames(count):
    positions = torch.zeros(count, 2, 3, dtype=torch.float64)
    positions[:, 1, 0] = torch.linspace(1.0, 2.0, count, dtype=torch.float64)
    pbc = torch.zeros(count, 3, dtype=torch.bool)
    cell = torch.zeros(count, 3, 3, dtype=torch.float64)
    return Structures(
        positions.view(-1, 3), torch.ones(2 * count, dtype=torch.long), 2 * torch.arange(count + 1), cell, pbc
    )


def phi(structures):
    r = (structures.positions[1::2] - structures.positions[::2]).norm(dim=1)
    return torch.stack([torch.ones_like(r), r, r.square()], 1)


ROOT = torch.tensor([[0.3, 0, 0], [0.1, 0.2, 0], [-0.2, 0.1, 0.1]], dtype=torch.float64)
MEAN = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def wanted(structures):
    return phi(structures) @ ROOT @ ROOT.T @ phi(structures).T


class Base:
    """A potential that states mean and variance, and offers nothing to draw from."""

    def predict(self, structures, covariance=False):
        mean, variance = phi(structures) @ MEAN, wanted(structures).diagonal()
        forces = torch.zeros_like(structures.positions)
        energy = Gaussian(mean, variance + 0.1, unit="eV", epistemic_variance=variance)
        return Prediction(energy=energy, forces=Gaussian(forces, forces + 1, unit="eV/Å"), pointer=structures.pointer)


class Linear(Base):
    """Half of the variance that it states is inflation."""

    posterior = LinearPosterior(MEAN, None, torch.zeros(3, 0, dtype=torch.float64))

    def features(self, structures):
        return phi(structures) @ ROOT / 2**0.5


class Factor(Base):
    def features(self, structures):
        return phi(structures) @ ROOT


class Dense(Base):
    def predict(self, structures, covariance=False):
        plain = super().predict(structures)
        if not covariance:
            return plain
        known = wanted(structures)
        noise = 0.1 * torch.eye(len(known), dtype=torch.float64)
        energy = Gaussian(
            plain.energy.mean,
            (known + noise).diagonal(),
            unit="eV",
            covariance=known + noise,
            epistemic_variance=known.diagonal(),
        )
        return Prediction(energy=energy, forces=plain.forces, pointer=plain.pointer)


class Functions(Base):
    def draws(self, size, *, seed):
        weights = MEAN + torch.randn(size, 3, generator=seed, dtype=torch.float64) @ ROOT.T
        return [
            SimpleNamespace(
                surface=lambda s, w=w: SimpleNamespace(energies=phi(s) @ w, forces=torch.zeros_like(s.positions))
            )
            for w in weights
        ]


class Ensemble(Base):
    members = MEAN + torch.randn(2000, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64) @ ROOT.T

    def predict(self, structures, covariance=False):
        energies = self.members @ phi(structures).T
        plain = super().predict(structures)
        return Prediction(
            energy=Mixture(energies, torch.ones_like(energies), unit="eV"), forces=plain.forces, pointer=plain.pointer
        )


@pytest.mark.parametrize(
    "model", [Linear(), Factor(), Dense(), Functions(), Ensemble()], ids=lambda m: type(m).__name__
)
def test_joint_draws_have_the_stated_covariance(model):
    parts = [frames(4), frames(3)]
    draws = 4000
    found = energy_surfaces(model, parts, draws, seed=1)
    whole = Structures.concatenate(parts)
    assert found.shape == (draws, 7)
    # Equal structures in different portions lie on one surface.
    torch.testing.assert_close(found[:, 0], found[:, 4], rtol=1e-4, atol=1e-5)
    want = wanted(whole)
    band = 6 * want.diagonal().max() / draws**0.5
    assert float((found.T.cov() - want).abs().max()) < band
    assert (
        float((found.mean(0) - phi(whole) @ MEAN).abs().max()) < 6 * float((want.diagonal().max() / draws).sqrt()) * 2
    )
    assert torch.equal(found, energy_surfaces(model, parts, draws, seed=1))


def test_a_certified_model_is_its_potential():
    certified = SimpleNamespace(model=Factor(), domain=object())
    parts = [frames(3)]
    assert torch.equal(energy_surfaces(certified, parts, 5, seed=0), energy_surfaces(Factor(), parts, 5, seed=0))
    assert torch.equal(mean_surface(certified, parts[0])[0], phi(parts[0]) @ MEAN)


def test_a_potential_without_a_joint_posterior_is_refused():
    with pytest.raises(DataError, match="joint covariance"):
        energy_surfaces(Base(), [frames(3)], 5, seed=0)
    with pytest.raises(DataError, match="fitted potential"):
        mean_surface(object(), frames(2))


def test_features_that_do_not_explain_the_variance_are_not_used():
    class Wrong(Factor):
        def features(self, structures):
            return phi(structures)

    with pytest.raises(DataError, match="joint covariance"):
        energy_surfaces(Wrong(), [frames(5)], 5, seed=0)
