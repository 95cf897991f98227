"""From labelled structures to the rows of a linear model."""

import math
from dataclasses import replace

import pytest
import torch
from ase import Atoms
from ase.build import molecule

from bayesmol.data import Labelled, Structures
from bayesmol.potentials.ace_rows import (
    ENERGY,
    FORCE,
    OFFSET_STDDEV,
    VIRIAL,
    Model,
    Rows,
    all_rows,
    rows,
    rows_in_chunks,
)
from bayesmol.representation import design
from bayesmol.representation.design import Representation
from bayesmol.representation.radial import RadialBasis

KNOWN = (1, 6, 8)
UPPER = [0, 1, 2, 4, 5, 8]


@pytest.fixture
def model():
    representation = Representation.random(KNOWN, RadialBasis(cutoff=3.0, size=3), (2, 2, 1), (2, 2, 2), seed=0)
    families = int(representation.families.max()) + 1
    log_prior = torch.linspace(-1, 1, families, dtype=torch.float64)
    log_noise = torch.tensor([0.01, 0.02, 0.1, 0.2, 0.3], dtype=torch.float64).log()
    return Model(representation, log_prior, log_noise, torch.tensor([-13.0, -1030.0, -2040.0], dtype=torch.float64))


@pytest.fixture
def labelled(normal):
    """A crowded molecule, a molecule without forces and a cell; only the cell has a stress."""
    frames = [
        molecule("CH3OH"),
        molecule("H2O"),
        Atoms("CO", [[0, 0, 0], [1.0, 0.5, 0.3]], cell=[2.5, 2.6, 2.7], pbc=True),
    ]
    frames[0].positions *= 0.6
    structures = Structures.from_ase(frames)
    atoms = len(structures.species)
    forces, stress = normal(atoms, 3), normal(3, 3, 3)
    forces[structures.structure_index == 1] = 0
    return Labelled(
        structures,
        energies=normal(3),
        forces=forces,
        stresses=stress + stress.mT,
        energy_errors=normal(3).abs(),
        force_errors=normal(atoms, 3).abs(),
        stress_errors=normal(3, 3, 3).abs(),
        has_forces=torch.tensor([True, False, True]),
        has_stresses=torch.tensor([False, False, True]),
    )


def kept_forces(labelled):
    return labelled.has_forces[labelled.structures.structure_index]


def test_targets_and_baseline_reproduce_the_labels(model, labelled):
    found = rows(model, labelled, torch.float64)
    energies, forces, virials = model.baseline(labelled.structures)
    assert bool(energies.abs().max() > 1000) and bool(forces.abs().max() > 1)
    torch.testing.assert_close(found.targets[found.kind == ENERGY] + energies, labelled.energies)
    keep = kept_forces(labelled)
    torch.testing.assert_close(
        found.targets[found.kind == FORCE] + forces[keep].reshape(-1), labelled.forces[keep].reshape(-1)
    )
    volume = 2.5 * 2.6 * 2.7
    stress = (found.targets[found.kind == VIRIAL] + virials[2].reshape(-1)[UPPER]) / volume
    torch.testing.assert_close(stress, labelled.stresses[2].reshape(-1)[UPPER])


def test_baseline_is_the_repulsion_and_the_references(model):
    apart = Structures.from_ase([molecule("H2O"), Atoms("C")])
    energies, forces, virials = model.baseline(apart)
    torch.testing.assert_close(energies, torch.tensor([-2066.0, -1030.0], dtype=torch.float64))
    assert not forces.any() and not virials.any()


def test_rows_belong_to_their_labels(model, labelled):
    found = rows(model, labelled, torch.float64)
    assert (found.kind == ENERGY).sum() == 3 and (found.kind == FORCE).sum() == 24 and (found.kind == VIRIAL).sum() == 6
    representation = model.representation
    whole = representation.design(representation.environments(labelled.structures), virial=True)
    keep = kept_forces(labelled).repeat_interleave(3)
    torch.testing.assert_close(found.design[found.kind == ENERGY], whole.energy)
    torch.testing.assert_close(found.design[found.kind == FORCE], whole.forces[keep])
    torch.testing.assert_close(found.design[found.kind == VIRIAL], whole.virial[18:][UPPER])


def test_groups_are_structures(model, labelled):
    found = rows(model, labelled, torch.float64, start=10)
    assert found.group.tolist() == [10, 11, 12] + [10] * 18 + [12] * 6 + [12] * 6
    atoms = {10: 6.0, 11: 3.0, 12: 2.0}
    assert found.atoms.tolist() == [atoms[group] for group in found.group.tolist()]


def test_noise_includes_the_errors_of_the_labels(model, labelled):
    found = rows(model, labelled, torch.float64)
    noise = found.noise(model)
    counts = torch.tensor([6.0, 3.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(noise[:3], 1e-4 * counts + labelled.energy_errors.square())
    errors = labelled.force_errors[kept_forces(labelled)].reshape(-1)
    sigma = dict(zip(model.representation.species, (0.1, 0.2, 0.3), strict=True))
    owner = labelled.structures.species[kept_forces(labelled)].tolist()
    misfit = torch.tensor([sigma[element] ** 2 for element in owner], dtype=torch.float64).repeat_interleave(3)
    torch.testing.assert_close(noise[found.kind == FORCE], misfit + errors.square())
    errors = 2.5 * 2.6 * 2.7 * labelled.stress_errors[2].reshape(-1)[UPPER]
    torch.testing.assert_close(noise[found.kind == VIRIAL], 4e-4 * 2 + errors.square())
    exact = replace(labelled, energy_errors=None, force_errors=None, stress_errors=None)
    found = rows(model, exact, torch.float64)
    assert not found.errors.any()
    torch.testing.assert_close(found.noise(model)[found.kind == FORCE], misfit)


def test_whitened_rows_carry_the_prior(model, labelled):
    """The covariance of labels is the design times the prior variances, plus that of the reference energies."""
    found = rows(model, labelled, torch.float64)
    white = found.whitened(model)
    prior = torch.exp(2 * model.log_prior)[model.representation.families]
    composition = torch.tensor([[4, 1, 1], [2, 0, 1], [0, 1, 1]]).double()
    want = (found.design * prior) @ found.design.mT
    want[:3, :3] += OFFSET_STDDEV**2 * composition @ composition.mT
    torch.testing.assert_close(white @ white.mT, want)
    assert not found.composition[3:].any()
    assert white.shape[1] == model.whitened(found.design).shape[1] == len(prior) + 3


@pytest.mark.parametrize("limit", [1, 2**18, 2**30])
def test_chunks_are_all_rows(model, labelled, monkeypatch, limit):
    whole = rows(model, labelled, torch.float64)
    monkeypatch.setattr(design, "CHUNK_BYTES", limit)
    parts = list(rows_in_chunks(model, labelled))
    assert len(parts) == 3 or limit > 1
    found = all_rows(model, labelled)

    def ordered(part):
        order = torch.argsort(part.group * 10 + part.kind, stable=True)
        return {name: getattr(part, name)[order] for name in Rows.__dataclass_fields__}

    chunked, at_once = ordered(found), ordered(whole)
    for name, value in at_once.items():
        torch.testing.assert_close(chunked[name], value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("names", [("energies",), ("forces",), ("energies", "forces")])
def test_missing_labels_have_no_rows(model, labelled, names):
    part = Labelled(labelled.structures, **{name: getattr(labelled, name) for name in names})
    found = all_rows(model, part)
    kinds = {"energies": ENERGY, "forces": FORCE}
    assert found.kind.unique().tolist() == [kinds[name] for name in names]
    assert len(found.targets) == 3 * ("energies" in names) + 33 * ("forces" in names)


def test_single_precision_keeps_targets_precise(model, labelled):
    rough, fine = rows(model, labelled, torch.float32), rows(model, labelled, torch.float64)
    assert rough.design.dtype == torch.float32 and rough.targets.dtype == torch.float64
    torch.testing.assert_close(rough.targets, fine.targets)
    assert float((rough.design - fine.design).norm() / fine.design.norm()) < 1e-5


def test_rows_are_differentiable_in_the_mixing(model, labelled):
    mixing = tuple(part.clone().requires_grad_() for part in model.representation.mixing)
    trained = replace(model, representation=model.representation.with_mixing(mixing))
    loss = all_rows(trained, labelled).whitened(trained).square().sum()
    gradients = torch.autograd.grad(loss, mixing)
    assert all(bool(gradient.any()) for gradient in gradients)

    def at(scale):
        moved = replace(
            model, representation=model.representation.with_mixing(tuple(m.detach() * scale for m in mixing))
        )
        return float(all_rows(moved, labelled).whitened(moved).square().sum())

    slope = (at(1 + 1e-5) - at(1 - 1e-5)) / 2e-5
    total = sum(float((g * m.detach()).sum()) for g, m in zip(gradients, mixing, strict=True))
    assert math.isclose(total, slope, rel_tol=1e-6)


def test_moved_model_is_the_same(model, labelled):
    found, moved = all_rows(model, labelled), all_rows(model.to("cpu"), labelled)
    assert torch.equal(found.design, moved.design) and torch.equal(found.targets, moved.targets)
