import math

import pytest
import torch
from e3nn import o3

from bayesmol.potentials.network_products import (
    Convolution,
    Linear,
    Product,
    ScalarProduct,
    clebsch_gordan,
    paths,
)
from bayesmol.representation.couplings import block


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def rotation(degree, improper=False, seed=0):
    """A rotation of space and what it does to the components up to a degree, in the convention of sphericart."""
    from sphericart.torch import SphericalHarmonics

    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=source(seed), dtype=torch.float64))
    turn = turn * turn.det().sign() * (-1 if improper else 1)
    points = torch.randn(200, 3, generator=source(seed + 1), dtype=torch.float64)
    harmonics = SphericalHarmonics(degree)
    before, after = harmonics.compute(points), harmonics.compute(points @ turn.T)
    return turn, torch.linalg.lstsq(before, after).solution.T


def test_paths_keep_parity_and_the_triangle():
    found = paths(2, 1, 2)
    assert (1, 1, 0) in found and (1, 1, 2) in found and (2, 1, 1) in found
    assert (1, 1, 1) not in found and (2, 0, 1) not in found
    assert all(abs(a - b) <= c <= a + b and (a + b + c) % 2 == 0 for a, b, c in found)
    assert len(paths(3, 3, 3)) == 23


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_clebsch_gordan_is_orthogonal(degree):
    table = clebsch_gordan(degree, degree, degree)
    listed = paths(degree, degree, degree)
    for number, (a, b, c) in enumerate(listed):
        share = (2 * c + 1) / sum(path[2] == c for path in listed)
        own = table[number, block(a), block(b), block(c)] / math.sqrt(share)
        gram = torch.einsum("abm,abn->mn", own, own)
        torch.testing.assert_close(gram, torch.eye(2 * c + 1).double() / (2 * c + 1), atol=1e-12, rtol=0)
        assert table[number].count_nonzero() == own.count_nonzero()


@pytest.mark.parametrize("improper", [False, True])
def test_products_turn_as_their_factors(improper):
    degree, channels = 3, 4
    _, turned = rotation(degree, improper)
    left, right = torch.randn(2, 5, channels, 16, generator=source(3), dtype=torch.float64)
    product, close = Product(degree, degree, degree, channels, source()).double(), {"atol": 1e-12, "rtol": 1e-10}
    torch.testing.assert_close(
        product(left @ turned.T, right @ turned.T), product(left, right) @ turned.T, atol=1e-12, rtol=1e-10
    )
    scalar = ScalarProduct(degree, channels, source()).double()
    torch.testing.assert_close(scalar(left @ turned.T, right @ turned.T), scalar(left, right), **close)
    mixing = Linear(degree, channels, 3, source()).double()
    torch.testing.assert_close(mixing(left @ turned.T), mixing(left) @ turned.T, **close)


@pytest.mark.parametrize("improper", [False, True])
def test_convolution_turns_as_its_edges(improper):
    degree, channels, atoms, edges = 3, 2, 4, 9
    _, turned = rotation(degree, improper)
    convolution = Convolution(degree, 2, degree).double()
    harmonics = torch.randn(edges, 16, generator=source(1), dtype=torch.float64)
    features = torch.randn(atoms, channels, 9, generator=source(2), dtype=torch.float64)
    radial = torch.randn(edges, channels, len(convolution.paths), generator=source(4), dtype=torch.float64)
    first, second = torch.randint(atoms, (2, edges), generator=source(5))
    args = radial[..., list(convolution.path)], first, second
    found = convolution(harmonics, args[0], features, *args[1:])
    again = convolution(harmonics @ turned.T, args[0], features @ turned[:9, :9].T, *args[1:])
    torch.testing.assert_close(again, found @ turned.T, atol=1e-12, rtol=1e-10)


def test_product_is_the_sum_over_its_paths():
    product = Product(1, 2, 2, 3, source()).double()
    left = torch.randn(4, 3, 4, generator=source(1), dtype=torch.float64)
    right = torch.randn(4, 3, 9, generator=source(2), dtype=torch.float64)
    want = torch.einsum("kp,pabc,nka,nkb->nkc", product.weight, clebsch_gordan(1, 2, 2), left, right)
    torch.testing.assert_close(product(left, right), want)


def test_scalar_product_is_a_product_of_degree_zero():
    scalar, product = ScalarProduct(2, 3, source()).double(), Product(2, 2, 0, 3, source()).double()
    left, right = torch.randn(2, 4, 3, 9, generator=source(1), dtype=torch.float64)
    parts = clebsch_gordan(2, 2, 0)[..., 0]
    signs = torch.stack([parts[p].diagonal()[block(p)].sign()[0] for p in range(3)])
    product.weight.data = scalar.weight.data * signs
    torch.testing.assert_close(scalar(left, right), product(left, right))


def test_convolution_agrees_with_e3nn():
    # e3nn's tensor product of one edge and one sender, in its basis: y is its polar axis, so x, y, z stand for y, z, x.
    vector = torch.randn(1, 3, generator=source(1), dtype=torch.float64)
    harmonics = o3.spherical_harmonics([0, 1, 2], vector[:, [1, 2, 0]], True, normalization="component")
    sender = torch.randn(1, 1, 4, generator=source(2), dtype=torch.float64)
    convolution = Convolution(2, 1, 2).double()
    radial = torch.randn(1, 1, len(convolution.paths), generator=source(3), dtype=torch.float64)
    index = torch.zeros(1, dtype=torch.long)
    found = convolution(harmonics, radial[..., list(convolution.path)], sender, index, index)[0, 0]
    want = torch.zeros(9, dtype=torch.float64)
    for number, (a, b, c) in enumerate(convolution.paths):
        share = math.sqrt((2 * c + 1) / sum(path[2] == c for path in convolution.paths))
        coupled = torch.einsum(
            "abc,a,b->c", o3.wigner_3j(a, b, c, dtype=torch.float64), harmonics[0, block(a)], sender[0, 0, block(b)]
        )
        want[block(c)] += share * radial[0, 0, number] * coupled
    torch.testing.assert_close(found, want)
