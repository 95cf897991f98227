import math

import pytest
import torch
from ase.build import molecule

from bayesmol.errors import DataError
from bayesmol.flows.bases import GaussianUniform
from bayesmol.flows.coordinates import Composed, MeanFree
from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.molecular_coordinates import Internal, TorsionOnly, molecular
from bayesmol.flows.viewed import Seen
from bayesmol.flows.whitened import whitening
from bayesmol.representation.internal import wrapped
from bayesmol.representation.zmatrix import bonds, zmatrix


def of(name):
    atoms = molecule(name)
    return torch.tensor(atoms.numbers), torch.tensor(atoms.positions - atoms.positions.mean(0))


def shaken(x, normal, points=40, size=0.04):
    return (x + size * normal(points, *x.shape)).flatten(1)


def springs(species, x, stiffness=40.0):
    """Energy of all distances up to two bonds apart, the same for equal pairs of elements."""
    edges = bonds(species, x)
    near = torch.zeros(len(x), len(x), dtype=torch.long)
    near[edges[:, 0], edges[:, 1]] = near[edges[:, 1], edges[:, 0]] = 1
    first, second = (torch.triu(near + near @ near, 1) > 0).nonzero().T
    kinds = near[first, second] + 2 * (100 * species[first] * species[second] + species[first] + species[second])
    _, kind = kinds.unique(return_inverse=True)
    ideal = torch.zeros(len(kind), dtype=x.dtype).index_add(0, kind, (x[first] - x[second]).norm(dim=1))
    ideal = (ideal / kind.bincount(minlength=len(kind)).clamp(min=1))[kind]

    def energy(rows):
        atoms = rows.unflatten(1, (-1, 3))
        return stiffness / 2 * ((atoms[:, first] - atoms[:, second]).norm(dim=2) - ideal).square().sum(1)

    return energy


class Base:
    """The base density of whitened coordinates as a proposal."""

    def __init__(self, coordinates):
        self.base = GaussianUniform(coordinates.circular)
        self.dimension = self.base.dimension
        self.log_prob = self.base.log_prob

    def sample(self, size, *, seed):
        y = self.base.sample(size, seed=seed, dtype=torch.float64)
        return y, self.log_prob(y)


@pytest.mark.parametrize("name", ["H2O", "NH3", "CH4", "C2H6", "CH3CONH2", "CH3CH2OH", "C6H6"])
@pytest.mark.parametrize("rotors", [True, False])
def test_round_trip(name, rotors, normal):
    species, x = of(name)
    coordinates = Internal(zmatrix(species, x), rotors=rotors)
    y, volume = coordinates(shaken(x, normal))
    assert y.shape[1] == 3 * len(x) - 6 == len(coordinates.circular)
    again, back = coordinates.inverse(y)
    assert torch.isfinite(volume).all()
    torch.testing.assert_close(back, -volume, rtol=1e-12, atol=1e-10)
    difference = coordinates(again)[0] - y
    assert torch.where(coordinates.circular, wrapped(difference), difference).abs().max() < 1e-10


@pytest.mark.parametrize("rotors", [True, False])
def test_volume_is_that_of_autograd(rotors, normal):
    species, x = of("CH3CONH2")
    coordinates = Internal(zmatrix(species, x), rotors=rotors)
    y, volume = coordinates(shaken(x, normal, 1))
    jacobian = torch.autograd.functional.jacobian(lambda q: coordinates.inverse(q)[0][0], y)[:, 0]
    at = coordinates.inverse(y)[0].reshape(-1, 3)
    generators = torch.stack([torch.linalg.cross(axis.expand_as(at), at) for axis in torch.eye(3).double()], -1)
    shifts = torch.eye(3).double().repeat(len(x), 1) / math.sqrt(len(x))
    square = torch.cat([jacobian, generators.flatten(0, 1), shifts], 1)
    copies = math.log(3) if rotors else 0.0
    want = torch.linalg.slogdet(square).logabsdet + math.log(8 * math.pi**2) + copies
    assert float(-volume[0]) == pytest.approx(float(want), abs=1e-9)


@pytest.mark.parametrize("name", ["H2O", "NH3"])
def test_partition_function_of_a_cloud(name, normal):
    """A Gaussian cloud has a known integral over centred configurations; internal coordinates must find it."""
    species, x = of(name)
    cloud = BoltzmannDensity(lambda rows: rows.square().sum(1) / 2, x.numel())
    internal = Internal(zmatrix(species, x))
    sample = MeanFree(len(x), 3).inverse(normal(20000, x.numel() - 3))[0]
    rows = internal(sample)[0]
    coordinates = Composed([internal, whitening(rows, internal.circular)])
    draws, log_q = Seen(Base(coordinates), coordinates).sample(200_000, seed=1)
    assert log_q.isinf().any(), "some angles leave their range, and have no weight"
    weights = torch.exp(-cloud.reduced_energy(draws) - log_q)
    error = weights.std() / math.sqrt(len(weights))
    exact = (2 * math.pi) ** ((x.numel() - 3) / 2)
    assert error < 0.01 * exact
    assert abs(weights.mean() - exact) < 4 * error


def test_equal_atoms_have_no_labels(normal):
    species, x = of("CH3CONH2")
    matrix = zmatrix(species, x)
    rows = shaken(x, normal)
    swap = torch.arange(len(x))
    methyl = matrix.atoms[matrix.rotors[0] + 3]
    swap[methyl] = methyl.roll(1)
    relabelled = rows.unflatten(1, (-1, 3))[:, swap].flatten(1)
    energy = springs(species, x)
    torch.testing.assert_close(energy(relabelled), energy(rows))
    coordinates = Internal(matrix)
    for a, b in zip(coordinates(rows), coordinates(relabelled), strict=True):
        torch.testing.assert_close(wrapped(a - b), torch.zeros_like(a), atol=1e-10, rtol=0)
    torch.testing.assert_close(energy(coordinates.inverse(coordinates(rows)[0])[0]), energy(rows))
    plain = Internal(matrix, rotors=False)
    assert (plain(rows)[0] - plain(relabelled)[0]).abs().max() > 1


def test_handedness_is_kept(normal):
    _, x = of("CH4")
    species, edges = torch.tensor([6, 1, 9, 17, 35]), torch.tensor([[0, k] for k in range(1, 5)])
    rows = shaken(x, normal)
    mirrored = (rows.unflatten(1, (-1, 3)) * torch.tensor([1.0, 1.0, -1.0])).flatten(1)
    kept, free = (Internal(zmatrix(species, x, edges), handed=handed) for handed in (True, False))
    assert kept(rows)[1].isfinite().all() and (kept(mirrored)[1] == -math.inf).all()
    torch.testing.assert_close(free(rows)[1], free(mirrored)[1])
    assert (kept.inverse(free(mirrored)[0])[1] == -math.inf).all()


def test_no_density_outside(normal):
    species, x = of("H2O")
    internal = Internal(zmatrix(species, x))
    y = internal(x.reshape(1, -1))[0].repeat(3, 1)
    y[1, 2], y[2, 0] = -0.1, 1e6
    y.requires_grad_()
    at, volume = internal.inverse(y)
    assert volume.isinf().tolist() == [False, True, True]
    (gradient,) = torch.autograd.grad(volume[:1].sum() + at.sum(), y)
    assert gradient.isfinite().all()


def test_rotors_keep_their_sense(normal):
    """The domain is the same for each labelling, and the inverse has no second configuration of a far deformation."""
    species, x = of("CH3CONH2")
    matrix = zmatrix(species, x)
    for handed in (True, False):
        internal = Internal(matrix, handed=handed)
        y = internal(shaken(x, normal, 2000))[0]
        y[:, internal.columns[2, 0, 1:]] = 2 * normal(2000, 2)
        at, volume = internal.inverse(y)
        inside = volume.isfinite()
        assert 0.05 < inside.double().mean() < 0.95
        difference = internal(at)[0] - y
        assert torch.where(internal.circular, wrapped(difference), difference)[inside].abs().max() < 1e-8
        methyl, swap = matrix.atoms[matrix.rotors[0] + 3], torch.arange(len(x))
        for labels in (methyl.roll(1), methyl.roll(2)):
            swap[methyl] = labels
            relabelled = at.unflatten(1, (-1, 3))[:, swap].flatten(1)[inside]
            torch.testing.assert_close(internal(relabelled)[1], -volume[inside])
        swap[methyl] = methyl[[0, 2, 1]]
        assert internal(at.unflatten(1, (-1, 3))[:, swap].flatten(1)[inside])[1].isinf().all()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_coordinates():
    one, same, other = (molecular(molecular_density("CH3OH"), seed=seed).parts[1].factor for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_torsions_alone(normal):
    species, x = of("CH3CH2OH")
    internal = Internal(zmatrix(species, x), rotors=False)
    torsions = TorsionOnly(internal, x.reshape(1, -1))
    assert torsions.circular.all() and len(torsions.circular) == 2
    y = wrapped(3 * normal(20, 2))
    at, volume = torsions.inverse(y)
    assert not volume.any()
    assert wrapped(torsions(at)[0] - y).abs().max() < 1e-10
    edges = bonds(species, x).T
    atoms = at.unflatten(1, (-1, 3))
    lengths = (atoms[:, edges[0]] - atoms[:, edges[1]]).norm(dim=2)
    torch.testing.assert_close(lengths, (x[edges[0]] - x[edges[1]]).norm(dim=1).expand_as(lengths))
    with pytest.raises(DataError, match="rotate"):
        TorsionOnly(Internal(zmatrix(*of("H2O"))), of("H2O")[1].reshape(1, -1))


def molecular_density(name="CH3CONH2"):
    species, x = of(name)
    energy = springs(species, x, 20.0)
    start = x.reshape(1, -1)
    return BoltzmannDensity(energy, x.numel(), 300.0, "eV", (len(x), 3), 3, start, species, name=name)


def test_coordinates_from_the_density_alone():
    density = molecular_density()
    coordinates = molecular(density, seed=0)
    assert coordinates.dimension == 27 and len(coordinates.circular) == 21
    assert coordinates.circular[coordinates.parts[0].rotating].all(), "methyl and amide, which no energy holds here"
    assert coordinates.circular.sum() < 5
    draws, log_q = Seen(Base(coordinates), coordinates).sample(4000, seed=1)
    log_w = -density.reduced_energy(draws) - log_q
    weights = torch.softmax(log_w, 0)
    assert 1 / weights.square().sum() > 150, "the base is already near this floppy molecule"


def test_coordinates_from_samples(normal):
    density = molecular_density()
    samples = shaken(density.start[0].unflatten(0, (-1, 3)), normal, 200)
    coordinates = molecular(density, samples, seed=0)
    z, volume = coordinates(samples)
    assert volume.isfinite().all()
    straight = z[:, ~coordinates.circular]
    assert straight.mean(0).abs().max() < 1e-8 and (straight.std(0) - 1).abs().max() < 0.3
    mirrored = (samples.unflatten(1, (-1, 3)) * torch.tensor([1.0, 1.0, -1.0])).flatten(1)
    with pytest.raises(DataError, match="handedness"):
        molecular(density, mirrored, seed=0)
    with pytest.raises(DataError, match="species"):
        molecular(BoltzmannDensity(density.energy, 27), seed=0)


def test_float32(normal):
    species, x = of("CH3CONH2")
    internal = Internal(zmatrix(species, x))
    rows = shaken(x, normal).float()
    y, _ = internal(rows)
    assert y.dtype == torch.float32
    difference = internal(internal.inverse(y)[0])[0] - y
    assert torch.where(internal.circular, wrapped(difference), difference).abs().max() < 1e-5
