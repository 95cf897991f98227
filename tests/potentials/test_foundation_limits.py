"""Limits of a corrected foundation agree with those of the Bayesian ACE."""

from dataclasses import replace

import torch

import bayesmol as bm
from bayesmol.potentials.foundation_limits import limits, too_close


def test_shortest_distances_and_compositions():
    structures = bm.data.load("rmd17/ethanol")[:10].structures
    found = limits(structures, (1, 6, 8))
    one = torch.stack([torch.cdist(p, p) for p in structures.positions.reshape(10, 9, 3)])
    kinds = structures.species[:9]
    for a, first in enumerate((1, 6, 8)):
        for b, second in enumerate((1, 6, 8)):
            pairs = one[:, kinds == first][:, :, kinds == second]
            pairs = pairs[pairs > 0]
            want = pairs.min() if len(pairs) else torch.tensor(torch.inf).double()
            torch.testing.assert_close(found["distances"][a, b], want)
    assert found["compositions"].shape == (3, 1) and len(found["frames"]) == 10


def test_closer_than_four_fifths_is_too_close():
    structures = bm.data.load("rmd17/ethanol")[:3].structures
    shortest = limits(structures, (1, 6, 8))["distances"]
    for factor, close in ((0.9, False), (0.5, True)):
        squeezed = replace(structures, positions=factor * structures.positions)
        assert bool(too_close(squeezed, (1, 6, 8), shortest).all()) is close
