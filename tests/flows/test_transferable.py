"""One kernel for several molecules: maximum likelihood, ensembles, and molecules left out."""

import math

import ase.build
import pytest
import torch

from bayesmol.errors import DataError, ShapeError
from bayesmol.flows.transferable import TransferableKernel
from bayesmol.flows.transferable_context import Molecule

SMALL = TransferableKernel(members=2, steps=5, batch=8, width=8, hidden=12)


def frames(name, count=6, noise=0.03, seed=0):
    atoms = ase.build.molecule(name)
    equilibrium = torch.from_numpy(atoms.positions).flatten()
    source = torch.Generator().manual_seed(seed)
    rows = equilibrium + noise * torch.randn(count, len(equilibrium), generator=source, dtype=torch.float64)
    return torch.from_numpy(atoms.numbers).long(), equilibrium, rows


@pytest.fixture(scope="module")
def fitted():
    return SMALL.fit([frames("H2O", 50), frames("CH3OH", 50)], seed=0)


@pytest.mark.slow
def test_a_gaussian_molecule_is_learned_to_its_entropy():
    species, equilibrium, rows = frames("H2O", 1)
    molecule = Molecule.of(species, equilibrium)
    source = torch.Generator().manual_seed(1)
    noise = torch.randn(2000, 3, generator=source, dtype=torch.float64)
    factor = torch.tensor([[0.02, 0, 0], [0.01, 0.02, 0], [0.0, 0.03, 0.06]], dtype=torch.float64)
    y = molecule.internal(rows)[0] + noise @ factor.mT
    x, volume = molecule.internal.inverse(y)
    entropy = 1.5 * math.log(2 * math.pi * math.e) + float(factor.logdet())
    spec = TransferableKernel(members=1, steps=400, batch=64, rate=2e-2)
    one = spec.fit([(species, equilibrium, x)], seed=0)
    loss = -float((one.proposal(species, equilibrium).log_prob(x) + volume).mean())
    assert loss == pytest.approx(entropy, abs=0.06)


def test_the_same_seed_gives_the_same_and_members_differ(fitted):
    species, equilibrium, rows = frames("H2O", 3)
    again = SMALL.fit([frames("H2O", 50), frames("CH3OH", 50)], seed=0)
    torch.testing.assert_close(
        again.proposal(species, equilibrium).log_prob(rows), fitted.proposal(species, equilibrium).log_prob(rows)
    )
    one, other = fitted.proposal(species, equilibrium).proposal.member_log_prob(
        Molecule.of(species, equilibrium).internal(rows)[0]
    )
    assert not torch.allclose(one, other)
    assert fitted.steps == 5
    assert len(fitted.loss) == 2


def test_the_left_out_molecule_has_no_part():
    molecules = [frames("H2O", 50), frames("CH3OH", 50), frames("NH3", 50)]
    one = SMALL.leave_one_out(molecules, [2], seed=0)
    other = SMALL.leave_one_out(
        [*molecules[:2], tuple((1, 1.1, 1.1)[k] * part for k, part in enumerate(molecules[2]))], [2], seed=0
    )
    for fit, again in zip(one, other, strict=True):
        species, equilibrium, rows = molecules[1]
        torch.testing.assert_close(*(f.proposal(species, equilibrium).log_prob(rows) for f in (fit, again)))
        assert fit.elements == {1, 6, 8}
    assert len(SMALL.leave_one_out(molecules[:2], seed=0)) == 2


def test_bad_input():
    with pytest.raises(DataError, match="molecules"):
        SMALL.fit([], seed=0)
    species, equilibrium, rows = frames("H2O", 2)
    with pytest.raises(ShapeError, match="frames"):
        SMALL.fit([(species, equilibrium, rows[:, :6])], seed=0)
    with pytest.raises(ShapeError, match="equilibrium"):
        SMALL.fit([(species, equilibrium[:6], rows)], seed=0)
    with pytest.raises(DataError, match="finite"):
        SMALL.fit([(species, equilibrium, rows * math.nan)], seed=0)
    with pytest.raises(DataError, match="positive counts"):
        TransferableKernel(members=0)
