"""A shared kernel as a proposal for one molecule, and the gate of what it has not seen."""

import ase.build
import pytest
import torch

from bayesmol.errors import ApplicabilityError, FormatError
from bayesmol.flows.proposal import Proposal
from bayesmol.flows.transferable import TransferableKernel
from bayesmol.flows.transferable_fitted import FittedTransferable
from bayesmol.persistence import load, save

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


def test_the_proposal_states_the_density_of_its_draws(fitted):
    species, equilibrium, _ = frames("CH3OH")
    proposal = fitted.proposal(species, equilibrium)
    assert isinstance(proposal, Proposal)
    x, log_q = proposal.sample(40, seed=3)
    assert x.shape == (40, 18)
    inside = log_q.isfinite() & proposal.log_prob(x).isfinite()
    assert int(inside.sum()) > 20
    torch.testing.assert_close(proposal.log_prob(x)[inside], log_q[inside])
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    turned = (x.unflatten(1, (-1, 3)) @ (turn * turn.det())).flatten(1)
    torch.testing.assert_close(proposal.log_prob(turned)[inside], log_q[inside])


@pytest.mark.parametrize("name", ["SH2", "CH3SH", "CH3Cl"])
def test_an_unseen_element_is_always_refused(fitted, name):
    species, equilibrium, _ = frames(name)
    with pytest.raises(ApplicabilityError, match=r"no molecule of the training has (S|Cl)"):
        fitted.proposal(species, equilibrium, new_environments=True)
    assert not fitted.familiarity(species, equilibrium).inside


def test_an_unseen_environment_is_refused_unless_allowed(fitted):
    species, equilibrium, rows = frames("CH3CH2OH", 1, noise=0.0)
    assert fitted.familiarity(species, equilibrium).environments == ((6, (1, 1, 1, 6)), (6, (1, 1, 6, 8)))
    with pytest.raises(ApplicabilityError, match=r"C\(H, H, H, C\)"):
        fitted.proposal(species, equilibrium)
    assert torch.isfinite(fitted.proposal(species, equilibrium, new_environments=True).log_prob(rows)).all()
    assert fitted.familiarity(*frames("H2O", 1)[:2]).inside


def test_a_file_gives_the_same_kernels(fitted, tmp_path):
    save(fitted, tmp_path / "kernel.bm")
    again = load(tmp_path / "kernel.bm")
    species, equilibrium, rows = frames("CH3OH", 5)
    one, other = (f.proposal(species, equilibrium).log_prob(rows) for f in (fitted, again))
    assert torch.equal(one, other)
    assert (again.environments, again.steps, again.loss) == (fitted.environments, fitted.steps, fitted.loss)
    header, arrays = fitted.state()
    with pytest.raises(FormatError, match="weights"):
        FittedTransferable.from_state({**header, "shape": {**header["shape"], "width": 9}}, arrays)
