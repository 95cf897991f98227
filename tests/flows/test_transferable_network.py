"""The shared kernel: normalised, drawn from the density that it states, and blind to what fills up a stack."""

import ase.build
import pytest
import torch

from bayesmol.flows.conditioners import reproducible
from bayesmol.flows.transferable_context import Molecule, stacked
from bayesmol.flows.transferable_network import Kernel


def frames(name, count=6, noise=0.03, seed=0):
    atoms = ase.build.molecule(name)
    equilibrium = torch.from_numpy(atoms.positions).flatten()
    source = torch.Generator().manual_seed(seed)
    rows = equilibrium + noise * torch.randn(count, len(equilibrium), generator=source, dtype=torch.float64)
    return torch.from_numpy(atoms.numbers).long(), equilibrium, rows


def kernel(seed, noise):
    """With weights off their start, so that every term counts."""
    with reproducible(seed):
        made = Kernel(width=8, hidden=12, components=4)
        with torch.no_grad():
            for weight in made.parameters():
                weight.add_(noise * torch.randn_like(weight))
    return made.double().requires_grad_(False)


@pytest.mark.parametrize("name", ["H2O", "HOOH", "CH3OH"])
def test_draws_have_the_density_and_it_is_normalised(name):
    context = stacked([Molecule.of(*frames("H2O2" if name == "HOOH" else name)[:2])])
    one, other = kernel(0, 0.1), kernel(0, 0.1)
    with torch.no_grad():
        for weight in other.local.parameters():
            weight.add_(0.02)
        other.turn.bias.add_(0.02)
    drawn = one.sample(context, 20_000, torch.Generator().manual_seed(1))
    weights = (other.log_prob(context, drawn) - one.log_prob(context, drawn))[0].exp()
    assert float(weights.std()) > 0.01
    assert float(weights.mean()) == pytest.approx(1, abs=5 * float(weights.std()) / len(weights) ** 0.5)


def test_the_circle_is_integrated_to_one():
    context, one = stacked([Molecule.of(*frames("H2O2")[:2])]), kernel(1, 0.2)
    values = one.sample(context, 1, torch.Generator().manual_seed(0)).repeat(1, 4000, 1, 1)
    line = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000 * 2 * torch.pi - torch.pi
    group = int(context.circular[0].nonzero()[0])
    values[0, :, group, 2] = line
    joint = one.log_prob(context, values)[0]
    values[0, :, group, 2] = line + 2 * torch.pi
    torch.testing.assert_close(one.log_prob(context, values)[0], joint)
    # What is left of the integral is the density of the coordinates before, which moving the angle leaves alone.
    straight = one.log_prob(context._replace(known=_without(context.known, group)), values)[0]
    mass = (joint.exp().mean() * 2 * torch.pi).log()
    torch.testing.assert_close(straight, mass.expand_as(straight))


def _without(known, group):
    """Coordinates, one torsion left out."""
    known = known.clone()
    known[0, group, 2] = False
    return known


def test_later_groups_do_not_matter_and_earlier_ones_do():
    context, one = stacked([Molecule.of(*frames("CH3OH")[:2])]), kernel(2, 0.1)
    values = one.sample(context, 3, torch.Generator().manual_seed(0))
    _, pairs = one._graph(context)
    assert float(pairs[0].abs().sum((2, 3)).triu().sum()) == 0
    moved = values.clone()
    moved[:, :, 0, 0] += 0.01
    assert not torch.allclose(one.log_prob(context, moved), one.log_prob(context, values))


def test_a_stack_does_not_change_a_molecule():
    small, large = Molecule.of(*frames("H2O")[:2]), Molecule.of(*frames("CH3OH")[:2])
    one = kernel(3, 0.1)
    values = small.groups(small.internal(frames("H2O")[2])[0])[0]
    alone = one.log_prob(stacked([small]), values[None])[0]
    filled = torch.zeros(2, len(values), 5, 3, dtype=torch.float64)
    filled[0, :, : values.shape[1]] = values
    torch.testing.assert_close(one.log_prob(stacked([small, large]), filled)[0], alone)
