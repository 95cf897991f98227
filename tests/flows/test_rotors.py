import math

import pytest
import torch

from bayesmol.flows.rotors import LOG_VOLUME, labelled, unlabelled
from bayesmol.representation.internal import wrapped


def rotors(normal, points=30, count=2):
    bonds, angles = 0.1 + 0.03 * normal(points, count, 3), 1.9 + 0.1 * normal(points, count, 3)
    third = 2 * math.pi / 3 * torch.tensor([0.0, 1.0, -1.0]).double()
    torsions = wrapped(7 * normal(points, count, 1)) + third + 0.15 * normal(points, count, 3)
    return bonds, angles, relative(torsions)


def relative(torsions):
    return torch.cat([wrapped(torsions[..., :1]), wrapped(torsions[..., 1:] - torsions[..., :1])], -1)


def absolute(torsions):
    return torch.cat([torsions[..., :1], torsions[..., 1:] + torsions[..., :1]], -1)


def relabelled(values, shift):
    bonds, angles, torsions = values
    return bonds.roll(shift, -1), angles.roll(shift, -1), relative(absolute(torsions).roll(shift, -1))


def test_no_label_is_left(normal):
    values = rotors(normal)
    for shift in (1, 2):
        for a, b in zip(unlabelled(*values), unlabelled(*relabelled(values, shift)), strict=True):
            torch.testing.assert_close(a.cos(), b.cos())
            torch.testing.assert_close(a.sin(), b.sin())


def test_the_inverse_is_one_of_the_labellings(normal):
    values = rotors(normal)
    again = labelled(*unlabelled(*values))
    errors = []
    for shift in range(3):
        pairs = zip(again, relabelled(values, shift), strict=True)
        errors.append(torch.stack([wrapped(a - b).abs().amax(-1) for a, b in pairs]).amax(0))
    errors = torch.stack(errors)
    assert errors.amin(0).max() < 1e-12
    assert len(errors.argmin(0).unique()) == 3, "rotors in each third came back to the same one"


def test_no_seam(normal):
    """Coordinates of a rotor that turns all the way change smoothly and return three times."""
    bonds, angles, torsions = (q[:1, :1] for q in rotors(normal))
    turns = torch.linspace(0, 2 * math.pi, 1501, dtype=torch.float64)
    turned = absolute(torsions) + turns[:, None, None]
    values = unlabelled(bonds.expand_as(turned), angles.expand_as(turned), relative(turned))
    path = torch.cat(values, -1)[:, 0]
    steps = path.diff(dim=0)
    steps[:, 6] = wrapped(steps[:, 6])
    assert float(steps[:, 6].sum()) == pytest.approx(6 * math.pi), "three times around"
    assert steps.abs().max() < 0.02, "no jump where the labels of the inverse change"


def test_volume_is_that_of_autograd(normal):
    values = torch.cat([q[0, 0] for q in rotors(normal)])

    def mapped(v):
        return torch.cat(unlabelled(*v.reshape(3, 1, 1, 3))).flatten()

    logdet = torch.linalg.slogdet(torch.autograd.functional.jacobian(mapped, values)).logabsdet
    torch.testing.assert_close(-logdet + math.log(3), torch.tensor(LOG_VOLUME).double())
