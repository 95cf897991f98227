import pytest
import torch

from bayesmol.errors import DataError, ShapeError
from bayesmol.posterior import Gaussian, Prediction


def gaussian(normal, *shape, unit="eV"):
    return Gaussian(normal(*shape), normal(*shape).square(), unit=unit)


@pytest.fixture
def parts(normal):
    return {
        "energy": gaussian(normal, 3),
        "forces": gaussian(normal, 6, 3, unit="eV/Å"),
        "pointer": torch.tensor([0, 2, 3, 6]),
        "stress": gaussian(normal, 3, 3, 3, unit="eV/Å³"),
        "atomic_energies": gaussian(normal, 6),
        "inside": torch.tensor([True, False, True]),
        "p_value": torch.tensor([0.5, 0.01, 0.9]).double(),
        "provenance": {"model": "test"},
    }


@pytest.mark.parametrize(
    ("index", "structures", "atoms", "pointer"),
    [
        (0, [0], [0, 1], [0, 2]),
        (-1, [2], [3, 4, 5], [0, 3]),
        (slice(1, 3), [1, 2], [2, 3, 4, 5], [0, 1, 4]),
        (torch.tensor([2, 1]), [2, 1], [3, 4, 5, 2], [0, 3, 4]),
        (torch.tensor([True, False, True]), [0, 2], [0, 1, 3, 4, 5], [0, 2, 5]),
    ],
)
def test_selection(parts, index, structures, atoms, pointer):
    prediction = Prediction(**parts)
    chosen = prediction[index]
    assert len(prediction) == 3 and len(chosen) == len(structures)
    assert chosen.pointer.tolist() == pointer
    assert torch.equal(chosen.energy.mean, prediction.energy.mean[structures])
    assert torch.equal(chosen.forces.variance, prediction.forces.variance[atoms])
    assert torch.equal(chosen.stress.mean, prediction.stress.mean[structures])
    assert torch.equal(chosen.atomic_energies.mean, prediction.atomic_energies.mean[atoms])
    assert torch.equal(chosen.inside, prediction.inside[structures])
    assert torch.equal(chosen.p_value, prediction.p_value[structures])
    assert chosen.provenance == {"model": "test"}


def test_optional_parts_stay_absent(parts):
    prediction = Prediction(parts["energy"], parts["forces"], parts["pointer"])[1]
    assert prediction.stress is prediction.atomic_energies is prediction.inside is prediction.p_value is None


def test_iteration_ends(parts):
    assert [len(one.forces) for one in Prediction(**parts)] == [2, 1, 3]


def test_bad_indices_are_refused(parts):
    with pytest.raises(IndexError, match="index"):
        Prediction(**parts)[3]
    with pytest.raises(DataError, match="at least one"):
        Prediction(**parts)[3:]


@pytest.mark.parametrize("name", ["energy", "forces", "stress", "atomic_energies", "inside", "p_value"])
def test_parts_of_other_structures_are_refused(parts, name):
    parts[name] = parts[name][:1]
    with pytest.raises(ShapeError, match=name):
        Prediction(**parts)
