"""PairGP learns pair potentials: the exact process, its error bars, its candidates."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

import bayesmol as bm
from bayesmol.data import Labelled, Structures
from bayesmol.errors import DataError
from bayesmol.potentials.ace_rows import ENERGY, FORCE, all_rows
from bayesmol.potentials.pair_gp import PairGP
from bayesmol.testing import assert_calibrated

SPEC = PairGP(cutoffs=(5.0,), length_scales=(0.3,))


def argon(count, *, seed=0, noise=0.0):
    """Rattled crystals with the energies and forces of a pair potential of the shape of Lennard-Jones, in eV."""
    source = np.random.default_rng(seed)
    frames = []
    for _ in range(count):
        frame = bulk("Ar", "fcc", a=source.uniform(3.9, 4.3), cubic=True)
        frame.rattle(0.15, rng=source)
        frames.append(frame)
    structures = Structures.from_ase(frames)
    energies, forces = truth(structures)
    forces = forces + noise * torch.from_numpy(source.standard_normal(forces.shape))
    return Labelled(structures, energies + noise * torch.from_numpy(source.standard_normal(count)), forces)


def function(distances):
    return 0.1 * ((3.0 / distances) ** 8 - 2 * (3.0 / distances) ** 4) * (1 - (distances / 5) ** 2).clamp_min(0) ** 3


def truth(structures):
    from bayesmol.representation.neighbours import neighbours

    edges = neighbours(structures, 5.0)
    distances = edges.vectors.norm(dim=1).requires_grad_()
    values = function(distances)
    (slopes,) = torch.autograd.grad(values.sum(), distances)
    owner = structures.structure_index[edges.first]
    energies = torch.zeros(len(structures), dtype=torch.float64).index_add(0, owner, 0.5 * values.detach())
    pull = (slopes / distances.detach())[:, None] * edges.vectors
    return energies, torch.zeros_like(structures.positions).index_add(0, edges.first, pull)


@pytest.fixture(scope="module")
def fitted():
    return SPEC.fit(argon(12, noise=0.01))


def test_a_pair_potential_is_found(fitted):
    test = argon(30, seed=1)
    prediction = fitted.predict(test)
    assert float((prediction.forces.mean - test.forces).abs().mean()) < 0.005
    assert 0.007 < fitted.noise_force < 0.014, "the noise of the labels is learned"
    distances = torch.linspace(2.5, 4.5, 40, dtype=torch.float64)
    found = fitted.functions(distances, 18, 18)
    error = (found.mean.diff() - function(distances).diff()).abs()
    assert float(error.max()) < 0.01


def test_intervals_hold(fitted):
    test = argon(60, seed=2, noise=0.01)
    interval = fitted.predict(test).forces.interval(0.9)
    hits = interval.contains(test.forces).view(60, -1)[:, 0]
    assert_calibrated(int(hits.sum()), 60, 0.9)


def test_it_is_the_exact_process(fitted):
    """Predictions equal those of dense Gaussian-process algebra with the kernel itself, by brute sums over pairs."""
    data, test = argon(12, noise=0.01), argon(2, seed=3)
    model, kernel = fitted.model, fitted.model.representation.basis
    rows = all_rows(model, data)
    amplitude = float(model.scales()[0] ** 2)

    def sums(structures):
        from bayesmol.representation.neighbours import neighbours

        edges = neighbours(structures, kernel.cutoff)
        return structures.structure_index[edges.first], edges.vectors.norm(dim=1)

    owner, distances = sums(data.structures)
    own, others = sums(test.structures)

    def covariance(a, r, b, q, shape):
        found = torch.zeros(shape, dtype=torch.float64)
        return found.index_put((a[:, None], b[None]), 0.25 * amplitude * kernel.covariance(r, q), accumulate=True)

    energy = rows.kind == ENERGY
    composition = 4.0
    noise = rows.noise(model)[energy]
    full = covariance(owner, distances, owner, distances, (12, 12)) + composition**2 + torch.diag(noise)
    cross = covariance(own, others, owner, distances, (2, 12)) + composition**2
    only = torch.linalg.solve(full, rows.targets[energy])
    from bayesmol.inference.conjugate import posterior_from_rows

    white = rows.whitened(model)[energy]
    posterior = posterior_from_rows(white, rows.targets[energy], noise)
    new = all_rows(model, test)
    white = new.whitened(model)[new.kind == ENERGY]
    torch.testing.assert_close(white @ posterior.mean, cross @ only, rtol=1e-6, atol=1e-5)
    prior = covariance(own, others, own, others, (2, 2)) + composition**2
    want = (prior - cross @ torch.linalg.solve(full, cross.mT)).diagonal()
    torch.testing.assert_close(posterior.variance(white), want, rtol=1e-4, atol=1e-8)
    assert bool((rows.kind == FORCE).any())


def test_the_better_candidates_are_taken():
    data = argon(10, noise=0.005)
    found = PairGP(cutoffs=(3.2, 5.0), length_scales=(0.3, 3.0)).fit(data).model.representation.basis
    assert (found.cutoff, found.length_scale) == (5.0, 0.3)


def test_molecules_of_several_elements():
    train, test = bm.data.load("rmd17/ethanol/train")[:30], bm.data.load("rmd17/ethanol/test")[:40]
    found = PairGP(cutoffs=(4.0,), length_scales=(0.3,)).fit(train)
    prediction = found.predict(test)
    assert float((prediction.forces.mean - test.forces).abs().mean()) < 0.8 * float(test.forces.abs().mean())
    assert 0.75 < prediction.forces.interval(0.9).covered(test.forces) < 0.98
    assert prediction.provenance["model"] == "PairGP" and prediction.provenance["structures"] == 30


def test_same_seed_same_fit():
    data = argon(6, noise=0.01)
    assert torch.equal(SPEC.fit(data, seed=1).posterior.mean, SPEC.fit(data, seed=1).posterior.mean)


def test_bad_input():
    with pytest.raises(DataError, match="cutoffs"):
        PairGP(cutoffs=())
    apart = Structures.from_ase([Atoms("Ar2", [[0, 0, 0], [0, 0, d]]) for d in (8.0, 9.0)])
    with pytest.raises(DataError, match="no pair within"):
        SPEC.fit(Labelled(apart, torch.tensor([0.0, 0.1]).double(), torch.zeros(4, 3).double()))
    with pytest.raises(DataError, match="two or more structures"):
        SPEC.fit(argon(2)[:1])
