"""The contract of label factories, on a reference with a known answer."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import joblib
import numpy as np
import pytest
import torch

from bayesmol.data import Labelled, Structures, load
from bayesmol.data.labelled import Source
from bayesmol.data.labelling import Reference, Result, label_hashes, program_version
from bayesmol.errors import ConvergenceError, DependencyError


@dataclass(frozen=True)
class Springs(Reference):
    """Σ k r²/2 about the origin, with a standard error; heavy atoms are refused in several ways."""

    stiffness: float = 2.0
    error: float | None = None

    library: ClassVar[str] = "numpy"
    together: ClassVar[int] = 3

    @property
    def source(self) -> Source:
        return Source("springs", "", "", "")

    def calculation(self) -> Callable:
        def calculate(frame) -> Result:
            if frame.numbers[0] == 90:
                raise ConvergenceError("no convergence in 7 cycles")
            factor = {91: math.nan, 92: 1e9}.get(int(frame.numbers[0]), self.stiffness)
            errors = None if self.error is None else np.full_like(frame.positions, self.error)
            energy = factor / 2 * (frame.positions**2).sum()
            stress = np.eye(3) if frame.pbc.all() else None
            forces = None if frame.numbers[0] == 2 else -factor * frame.positions
            return Result(float(energy), forces, stress, self.error, None if forces is None else errors)

        return calculate


def atoms(*numbers, seed=0):
    positions = torch.randn(len(numbers), 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    cell, pbc = torch.zeros(1, 3, 3, dtype=torch.float64), torch.zeros(1, 3, dtype=torch.bool)
    return Structures(5 * positions, torch.tensor(numbers), torch.tensor([0, len(numbers)]), cell, pbc)


def crystal():
    one = torch.ones(1, 3, dtype=torch.bool)
    zeros = torch.zeros(1, 3, dtype=torch.float64)
    return Structures(zeros + 1.0, torch.tensor([3]), torch.tensor([0, 1]), 4 * torch.eye(3).double()[None], one)


def test_labels_are_those_of_each_structure():
    batch = Structures.concatenate([atoms(1, 6, 8, seed=k) for k in range(8)])
    labels = Springs(3.0).label(batch)
    assert torch.allclose(labels.labelled.forces, -3.0 * batch.positions, rtol=1e-14)
    energies = torch.stack([1.5 * part.square().sum() for part in batch.positions.split(3)])
    assert torch.allclose(labels.labelled.energies, energies, rtol=1e-14)
    assert labels.labelled.energy_errors is None and labels.labelled.force_errors is None
    assert labels.succeeded.all() and labels.failures == {} and len(labels) == 8
    assert labels.labelled.source.name == "springs"


def test_failures_are_recorded_and_left_out():
    batch = Structures.concatenate([atoms(1, seed=1), *(atoms(z, 1) for z in (90, 91, 92)), atoms(6, seed=2)])
    labels = Springs().label(batch)
    assert labels.succeeded.tolist() == [True, False, False, False, True]
    assert labels.labelled.structures.species.tolist() == [1, 6]
    assert labels.failures[1] == "ConvergenceError: no convergence in 7 cycles"
    assert "not finite" in labels.failures[2] and "absurd" in labels.failures[3]
    assert Springs().label(atoms(90)).labelled is None


def test_mixed_labels_are_masked():
    batch = Structures.concatenate([atoms(1, 1), atoms(2), crystal()])
    found = Springs(error=0.25).label(batch).labelled
    assert found.has_forces.tolist() == [True, False, True] and found.has_stresses.tolist() == [False, False, True]
    assert found.energy_errors.tolist() == [0.25] * 3
    assert found.force_errors[:2].eq(0.25).all() and found.force_errors[2].eq(0).all()
    assert torch.equal(found.stresses[2], torch.eye(3, dtype=torch.float64))


def test_labels_follow_the_precision_of_nothing_but_the_result():
    batch = atoms(1, 6).to(dtype=torch.float32)
    labels = Springs().label(batch)
    assert labels.labelled.structures.positions.dtype == torch.float32
    assert labels.labelled.energies.dtype == torch.float64


def test_a_fingerprint_is_of_settings_and_version(monkeypatch):
    assert Springs().fingerprint == Springs(2.0).fingerprint != Springs(2.5).fingerprint
    assert len(Springs().fingerprint) == 64 and int(Springs().fingerprint, 16)
    assert Springs().settings == {"reference": "Springs", "stiffness": 2.0, "error": None}
    before = Springs().fingerprint
    monkeypatch.setattr("bayesmol.data.labelling.program_version", lambda library: "0")
    assert Springs().fingerprint != before


def test_hashes_name_structure_and_reference():
    one, other = atoms(1, 6), atoms(1, 6, seed=1)
    names = label_hashes(Structures.concatenate([one, other, one]), "a")
    assert names[0] == names[2] != names[1] and names[0] != label_hashes(one, "b")[0]
    assert Springs().label(one).hashes == label_hashes(one, Springs().fingerprint)
    swapped = Structures(one.positions, one.species.flip(0), one.pointer, one.cell, one.pbc)
    moved = Structures(one.positions + 1e-15, one.species, one.pointer, one.cell, one.pbc)
    boxed = Structures(one.positions, one.species, one.pointer, one.cell + torch.eye(3), one.pbc)
    periodic = Structures(one.positions, one.species, one.pointer, boxed.cell * 50, ~one.pbc)
    assert len({label_hashes(s, "a")[0] for s in (one, swapped, moved, periodic)}) == 4
    assert label_hashes(boxed, "a") == label_hashes(one, "a"), "the cell of what does not repeat means nothing"
    zero = Structures(one.positions * 0 + torch.tensor([[0.0], [1.0]]), one.species, one.pointer, one.cell, one.pbc)
    minus = Structures(-(-zero.positions - 0.0), one.species, one.pointer, one.cell, one.pbc)
    assert label_hashes(zero, "a") == label_hashes(minus, "a")


def test_two_threads_label_alike():
    batch = Structures.concatenate([atoms(1, 6, 8, seed=k) for k in range(7)])
    with joblib.parallel_config("threading", n_jobs=2):
        labels = Springs().label(batch)
    assert torch.equal(labels.labelled.forces, Springs().label(batch).labelled.forces)


def test_results_are_handed_on():
    batch, seen = Structures.concatenate([atoms(1, seed=k) for k in range(5)]), {}
    found = Springs().results(batch, seen.__setitem__)
    assert seen == dict(enumerate(found)) and list(seen) == [0, 1, 2, 3, 4]


def test_a_missing_program_names_the_extra():
    with pytest.raises(DependencyError, match=r"bayesmol\[reference\]"):
        program_version("a-program-that-is-not-there")


def test_any_kind_of_structures_is_labelled():
    frames = load("rmd17/ethanol")[:2]
    assert isinstance(Springs().label(frames).labelled, Labelled)
    assert torch.equal(Springs().label(frames.to_ase()).labelled.energies, Springs().label(frames).labelled.energies)
