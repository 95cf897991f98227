"""One conditional kernel for many molecules, judged on each molecule that it has not seen.

A draw is valid if its bonds, and no other pairs, are nearer than 1.25 times the sum of the covalent radii, and no bond
is below 0.75 times that: this was written down before a draw was looked at. The form of the kernel was changed once
after a look at the likelihood of ethane when that was left out, and the rate by training losses; ethane is therefore no
clean test.
"""

import math
from pathlib import Path

import torch
from boltzmann_frames import Frames, TightBinding, read
from torch import Tensor

from bayesmol.calibration.divergences import Bins, jensen_shannon
from bayesmol.errors import ApplicabilityError, DataError, expected
from bayesmol.flows.transferable import TransferableKernel
from bayesmol.flows.transferable_context import Molecule
from bayesmol.flows.transferable_fitted import FittedTransferable
from bayesmol.inference.importance import effective_size
from bayesmol.progress import progress
from bayesmol.report import Study, proportion

LONGEST, SHORTEST = 1.25, 0.75  # of the sum of two covalent radii
RESOLVED = 10  # effective draws below which an effective sample size says no more than that it is small
STRANGER = 16  # an element that no organic frame of the study has: the test of the gate puts it at the place of one


def transferable(
    study: Study,
    data: Path,
    minutes: float = 10.0,
    seed: int = 0,
    molecules: str | None = None,
    draws: int = 1000,
    energies: int = 500,
    members: int = 2,
) -> None:
    """Leave out each molecule in turn (or those named, separated by commas), train on the others, and judge.

    Parameters
    ----------
    minutes
        CPU minutes of training of all kernels together.
    energies
        Draws of each molecule whose energy by tight binding is calculated; 0 for none.
    members
        Of each ensemble.
    """
    known = read(data)
    names = [m.name for m in known] if molecules is None else molecules.split(",")
    if missing := set(names) - {m.name for m in known}:
        raise DataError(expected("molecules", f"of {[m.name for m in known]}", sorted(missing)))
    spec = TransferableKernel(members=members, steps=100_000, minutes=minutes, batch=16)
    places = [k for k, m in enumerate(known) if m.name in names]
    with study.stage("train", "training"):
        fits = spec.leave_one_out([(m.species, m.equilibrium, m.rows) for m in known], places, seed=seed)
    study.notes.append(f"{fits[0].steps} steps of training")
    found: dict[str, list[float]] = {}
    flagged = trials = 0
    with study.stage("judge", "judging"), progress("molecules left out", len(places)) as advance:
        for place, fitted in zip(places, fits, strict=True):
            judged(study, fitted, known[place], found, draws, energies, seed)
            hits, tests = gate(fitted, known)
            flagged, trials = flagged + hits, trials + tests
            advance()
    summarised(study, found, flagged, trials)


def summarised(study: Study, found: dict[str, list[float]], flagged: int, trials: int) -> None:
    """Figures over all molecules that were left out; the smallest and the median where there is a target."""
    valid = torch.tensor(found["valid"], dtype=torch.float64)
    study.add("valid_fraction", float(valid.mean()))
    study.add("valid_fraction_smallest", float(valid.min()))
    for name, values in found.items():
        if name != "valid":
            study.add(f"{name}_median", float(torch.tensor(values, dtype=torch.float64).median()))
    if "ess_fraction" in found:
        shares = found["ess_fraction"]
        study.add("ess_fraction", float(torch.tensor(shares).median()))
        pairs = list(zip(shares, found["effective_draws"], strict=True))
        study.add("ess_above_5_percent", sum(s >= 0.05 and n >= RESOLVED for s, n in pairs) / len(pairs))
        if unresolved := sum(n < RESOLVED for _, n in pairs):
            study.notes.append(
                f"of {unresolved} of {len(pairs)} molecules fewer than {RESOLVED} draws are effective: their effective "
                "sample sizes are upper bounds, and none can be below one draw"
            )
        study.notes.append("effective sample sizes are against GFN2-xTB at 300 K, as the frames are")
    study.add("unseen_element_flagged", proportion(flagged, trials))


@torch.no_grad()
def judged(
    study: Study,
    fitted: FittedTransferable,
    left: Frames,
    found: dict[str, list[float]],
    draws: int,
    energies: int,
    seed: int,
) -> None:
    """Figures of one molecule that the kernel has not seen; half of its frames make the rival, the others the test."""
    proposal = fitted.proposal(left.species, left.equilibrium, new_environments=True)
    molecule = Molecule.of(left.species, left.equilibrium)
    x, log_q = proposal.sample(draws, seed=seed + 1)
    here = {"valid": float(valid(molecule, x).double().mean())}
    half = len(left.rows) // 2
    rival, test = Rival(molecule, left.rows[:half]), left.rows[half:]
    here["nats_above_own_gaussian"] = float((rival.log_prob(test) - proposal.log_prob(test)).mean()) / rival.dimension
    here["ess_against_own_gaussian"] = effective_size(_weights(rival.log_prob(x), log_q)).fraction
    if (distance := torsion_distance(molecule, x, test)) is not None:
        here["torsion_js"] = distance
    if energies:
        log_w = _weights(-TightBinding(left.species).reduced_energy(x[:energies]), log_q[:energies])
        size = effective_size(log_w)
        here |= {"ess_fraction": size.fraction, "effective_draws": size.effective}
    strange = fitted.familiarity(left.species, left.equilibrium)
    text = ", ".join(f"{name} {value:.3g}" for name, value in here.items())
    study.notes.append(f"{left.name} (atoms {left.species.tolist()}): {text}; {strange}")
    for name, value in here.items():
        found.setdefault(name, []).append(value)


def _weights(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Log-weights; a draw that is no configuration has none."""
    return torch.where(torch.isfinite(log_q), log_p - log_q, -math.inf)


def valid(molecule: Molecule, x: Tensor) -> Tensor:
    """Whether each row has the bonds of the molecule, none too short, and no other contact."""
    from ase.data import covalent_radii

    radii = torch.as_tensor(covalent_radii, dtype=torch.float64)[molecule.species]
    atoms = len(radii)
    pairs = torch.triu_indices(atoms, atoms, offset=1)
    bonded = torch.zeros(atoms, atoms, dtype=torch.bool)
    bonded[tuple(molecule.edges.T)] = bonded[tuple(molecule.edges.flip(1).T)] = True
    places = x.unflatten(1, (-1, 3))
    ratio = (places[:, pairs[0]] - places[:, pairs[1]]).norm(dim=2) / (radii[pairs[0]] + radii[pairs[1]])
    bond = bonded[pairs[0], pairs[1]]
    right = torch.where(bond, (ratio > SHORTEST) & (ratio < LONGEST), ratio >= LONGEST)
    return right.all(1) & molecule.internal(x)[1].isfinite()


class Rival:
    """Gaussian of the internal coordinates of one molecule, from its own frames; angles about their mean direction."""

    def __init__(self, molecule: Molecule, rows: Tensor) -> None:
        self.molecule = molecule
        torsions = self._values(rows)[0][..., 2]
        self.middle = torch.atan2(torsions.sin().mean(0), torsions.cos().mean(0))
        flat = self._flat(rows)[0]
        self.dimension = flat.shape[1]
        ridge = 1e-6 * torch.eye(self.dimension, dtype=flat.dtype)
        self.law = torch.distributions.MultivariateNormal(flat.mean(0), torch.cov(flat.mT) + ridge)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of each row of positions."""
        flat, volume = self._flat(x)
        inside = volume.isfinite() & flat.isfinite().all(1)
        return torch.where(inside, self.law.log_prob(torch.where(inside[:, None], flat, 0.0)) + volume, -math.inf)

    def _values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, volume = self.molecule.internal(x)
        values, more = self.molecule.groups(y)
        return values, volume + more

    def _flat(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values, volume = self._values(x)
        turned = torch.remainder(values[..., 2] - self.middle + math.pi, 2 * math.pi) - math.pi
        torsions = torch.where(self.molecule.circular, turned, values[..., 2])
        values = torch.cat([values[..., :2], torsions[..., None]], 2)
        return values.flatten(1)[:, self.molecule.known.flatten()], volume


def torsion_distance(molecule: Molecule, x: Tensor, test: Tensor) -> float | None:
    """Largest Jensen-Shannon divergence, in nats, of a rotation about a bond, 36 cells; none if nothing rotates."""
    turning = torch.cat([torch.zeros(2, dtype=torch.bool), molecule.matrix.rotating])
    found = []
    for group in turning.nonzero()[:, 0].tolist():
        ours, theirs = (molecule.groups(molecule.internal(q)[0])[0][:, group, 2] for q in (x, test))
        bins = Bins.of(theirs, 36, periodic=True)
        found.append(float(jensen_shannon(bins.shares(ours), bins.shares(theirs))))
    return max(found, default=None)


def gate(fitted: FittedTransferable, known: list[Frames]) -> tuple[int, int]:
    """Molecules with one heavy atom replaced by an element without any training: how many are refused, of how many."""
    hits = 0
    for molecule in known:
        species = molecule.species.clone()
        species[int(species.argmax())] = STRANGER
        try:
            fitted.proposal(species, molecule.equilibrium, new_environments=True)
        except ApplicabilityError:
            hits += 1
    return hits, len(known)
