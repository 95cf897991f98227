import pytest
import torch

from bayesmol.calibration import paired
from bayesmol.calibration.observed import predictive_of_labels
from bayesmol.data import Labelled, Structures
from bayesmol.errors import DataError, ShapeError
from bayesmol.posterior import Draws, Gaussian, Mixture


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gaussian(*shape, unit="eV"):
    return Gaussian(numbers(*shape), numbers(*shape, seed=1).square() + 0.1, unit=unit)


@pytest.fixture
def labelled():
    """A water molecule without forces and two oxygen molecules with them."""
    species = torch.tensor([8, 1, 1, 8, 8, 8, 8])
    positions = numbers(7, 3, seed=3) + 3 * torch.arange(7)[:, None]
    cells, periodic = torch.zeros(3, 3, 3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.bool)
    structures = Structures(positions, species, torch.tensor([0, 3, 5, 7]), cells, periodic)
    has = torch.tensor([False, True, True])
    forces = torch.where(has[[0, 0, 0, 1, 1, 2, 2]][:, None], numbers(7, 3, seed=4), 0.0)
    return Labelled(structures, energies=numbers(3, seed=5), forces=forces, has_forces=has)


def test_forces_of_a_set_bring_structures_species_and_drop_what_has_none(labelled):
    forces = gaussian(7, 3, unit="eV/Å")
    posterior, observed = paired(forces, labelled)
    assert torch.equal(posterior.mean, forces.mean[3:]) and torch.equal(observed.values, labelled.forces[3:])
    assert observed.groups.tolist() == [0, 0, 1, 1] and observed.structures == 2
    assert observed.conditions["species"].tolist() == [8, 8, 8, 8]
    assert observed.conditions["atoms"].tolist() == [2, 2, 2, 2]
    assert observed.owner.tolist() == [0] * 6 + [1] * 6


def test_energies_of_a_set(labelled):
    posterior, observed = paired(gaussian(3), labelled)
    assert torch.equal(observed.values, labelled.energies) and observed.groups.tolist() == [0, 1, 2]
    assert observed.conditions["atoms"].tolist() == [3, 2, 2] and "species" not in observed.conditions
    assert len(posterior) == 3


def test_labels_that_are_distributions_bring_their_errors():
    truth = gaussian(5)
    _, observed = paired(gaussian(5), truth)
    assert torch.equal(observed.values, truth.mean) and torch.equal(observed.errors, truth.stddev)
    with pytest.raises(DataError, match="kcal"):
        paired(gaussian(5), Gaussian(truth.mean, truth.variance, unit="kcal/mol"))


def test_groups_are_numbered_from_zero():
    _, observed = paired(gaussian(4), numbers(4), groups=torch.tensor([7, 7, -2, 9]))
    assert observed.groups.tolist() == [1, 1, 0, 2]
    assert paired(gaussian(4), numbers(4))[1].groups.tolist() == [0, 1, 2, 3]


def test_errors_widen_the_claim_as_independent_noise():
    errors = numbers(6).abs()
    plain = gaussian(6)
    assert torch.allclose(predictive_of_labels(plain, errors).variance, plain.variance + errors.square())
    assert predictive_of_labels(plain, None) is plain
    assert predictive_of_labels(plain, torch.zeros(6, dtype=torch.float64)) is plain
    block = torch.tensor([[1.0, 0.5], [0.5, 2.0]], dtype=torch.float64)
    joint = Gaussian(numbers(2), block.diagonal(), unit="eV", covariance=(block,))
    wide = predictive_of_labels(joint, errors[:2])
    assert torch.allclose(wide.covariance[0], block + torch.diag(errors[:2].square())), "correlations stay"
    members = Mixture(numbers(3, 6), numbers(3, 6).square(), unit="eV")
    draws = Draws(numbers(2, 50, 6), numbers(2, 50), unit="eV")
    for posterior in (members, draws):
        wide = predictive_of_labels(posterior, errors)
        assert torch.allclose(wide.mean, posterior.mean)
        assert torch.allclose(wide.variance, posterior.variance + errors.square())


def test_bad_input_is_named(labelled):
    with pytest.raises(ShapeError, match="truth"):
        paired(gaussian(4), numbers(5))
    with pytest.raises(DataError, match="finite labels"):
        paired(gaussian(2), torch.tensor([0.0, float("nan")], dtype=torch.float64))
    with pytest.raises(ShapeError, match="groups"):
        paired(gaussian(4), numbers(4), groups=torch.tensor([0, 1]))
    with pytest.raises(ShapeError, match="errors"):
        paired(gaussian(4), numbers(4), errors=torch.ones(3, dtype=torch.float64))
    with pytest.raises(DataError, match="errors"):
        paired(gaussian(4), numbers(4), errors=-torch.ones(4, dtype=torch.float64))
    with pytest.raises(DataError, match="its own"):
        paired(gaussian(3), labelled, groups=torch.arange(3))
    with pytest.raises(DataError, match="tensor"):
        paired(gaussian(3, unit="kcal/mol"), labelled)
    with pytest.raises(ShapeError, match="energies"):
        paired(gaussian(4), labelled)
    with pytest.raises(DataError, match="stresses"):
        paired(gaussian(3, 3, 3, unit="eV/Å³"), labelled)
