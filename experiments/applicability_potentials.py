"""Domains on real potentials: are structures outside found, at which rate of false alarms, and by which atom?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from harness import labelled
from torch import Tensor

from bayesmol.applicability import CalibratedDomain, Domain, Verdict
from bayesmol.applicability.guards import Guards
from bayesmol.calibration.metrics import separation
from bayesmol.calibration.plots import BAD, GOOD, INK, panels
from bayesmol.data import Labelled, Structures
from bayesmol.potentials import BayesianACE, MixingSchedule
from bayesmol.report import Study, proportion
from bayesmol.representation.atomic import AtomicFeatures, atomic_features
from bayesmol.representation.design import Representation
from bayesmol.representation.radial import RadialBasis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCORES = ("leverage", "mahalanobis", "knn", "maxvol")
LEAVING = 8  # the hydrogen of the hydroxyl group in ethanol/h-removal
PARTNER = 2  # its oxygen


@dataclass(frozen=True)
class Sets:
    """Frames of one molecule: those that fit scores, that calibrate, that are like them, and probes by name."""

    train: Labelled
    calibration: Labelled
    test: Labelled
    probes: dict[str, Labelled]


def potentials(
    study: Study, *, level: float = 0.01, sizes: tuple[int, int] = (200, 500), frames: int = 50, seed: int = 0
) -> dict[str, Figure]:
    """Fill in separation, false alarms and attribution for ethanol and acetylacetone; the plots by name.

    Parameters
    ----------
    sizes
        Ethanol frames that fit the scores, and that calibrate; of acetylacetone 100 and 300.
    frames
        Frames, of those that fit the scores, to which the potential is fitted.
    """
    train, test = (labelled(f"rmd17/ethanol/{part}") for part in ("train", "test"))
    probes = {name: labelled(f"ethanol/{name}") for name in ("h-removal", "dimers")}
    ethanol = Sets(train[: sizes[0]], train[sizes[0] : sum(sizes)], test, probes)
    acac = labelled("acetylacetone/train")
    probes = {name: labelled(f"acetylacetone/{name}") for name in ("dihedral", "h-transfer")}
    acetylacetone = Sets(acac[:100], acac[100:400], acac[400:], probes)
    plots = removal(study, ethanol, level)
    molecule(study, "ethanol", ethanol, level, frames, seed)
    molecule(study, "acetylacetone", acetylacetone, level, frames, seed)
    study.notes.append(
        f"scores on 60 fixed random invariants of each atom; thresholds for at most {100 * level:g} % false alarms "
        "with 95 % confidence; nothing was chosen on probes or test frames"
    )
    return plots


def molecule(study: Study, name: str, sets: Sets, level: float, frames: int, seed: int) -> None:
    """AUROC of each probe against test frames, flagged probes, false alarms: by each score, without and with guards."""
    describe = _describer(sets.train.structures)
    described = {part: describe(data.structures) for part, data in _all(sets).items()}
    guards = Guards().fit(sets.train.structures)
    guard = {part: guards(data.structures) for part, data in _all(sets).items() if part != "train"}
    for part in ("test", *sets.probes):
        study.add(f"{name}_guards_{_plain(part)}_flagged", proportion(int(guard[part].isinf().sum()), len(guard[part])))
    for score in SCORES:
        for by_species in (False, True):
            key = f"{name}_{score}{'_species' if by_species else ''}"
            with study.stage(key):
                domain = Domain(score, level=level, by_species=by_species).fit(described["train"])
                plain = domain.calibrate(described["calibration"])
                guarded = domain.calibrate(described["calibration"], guard=guard["calibration"])
                parts = ("test", *sets.probes)
                _fill(study, key, {part: plain.assess(described[part]) for part in parts}, sets)
                verdicts = {part: guarded.assess(described[part], guard=guard[part]) for part in parts}
                _fill(study, f"{key}_guarded", verdicts, sets)
    with study.stage(f"{name}_strangeness"):
        verdicts = _strangeness(sets, level, frames, seed)
    _fill(study, f"{name}_strangeness", verdicts, sets)


def removal(study: Study, sets: Sets, level: float) -> dict[str, Figure]:
    """Which atom has the smallest p-value while a hydrogen leaves ethanol, and the p-values of all along the way.

    ``among``: the leaving atom has the smallest p-value, perhaps as others have; ``leaving``: it also has the largest
    score of these; ``bond``: it or its oxygen has.
    """
    describe = _describer(sets.train.structures)
    train, calibration = describe(sets.train.structures), describe(sets.calibration.structures)
    scan = sets.probes["h-removal"].structures
    distance, gone = bond(scan), stretched(scan, sets.train.structures)
    plots = {}
    for score in SCORES:
        for by_species in (False, True):
            key = f"{score}{'_species' if by_species else ''}"
            domain = Domain(score, level=level, by_species=by_species).fit(train).calibrate(calibration)
            atoms = domain.assess(describe(scan)).atoms
            smallest = atoms.p_value.reshape(-1, 9)[gone]
            among = smallest[:, LEAVING] <= smallest.amin(1)
            study.add(f"attribution_{key}_among", proportion(int(among.sum()), len(among)))
            first = strangest(atoms).reshape(len(scan))[gone]
            study.add(f"attribution_{key}_leaving", proportion(int((first == LEAVING).sum()), len(first)))
            bonded = torch.isin(first, torch.tensor([LEAVING, PARTNER]))
            study.add(f"attribution_{key}_bond", proportion(int(bonded.sum()), len(first)))
            plots[f"removal_{key}"] = removal_figure(distance, atoms, domain, sets.train.structures)
    return plots


def bond(structures: Structures) -> Tensor:
    """Distance of the hydroxyl hydrogen from its oxygen in ethanol with the atoms of the scan, in Å."""
    positions = structures.positions.reshape(len(structures), 9, 3)
    return (positions[:, LEAVING] - positions[:, PARTNER]).norm(dim=1)


def stretched(scan: Structures, train: Structures) -> Tensor:
    """Whether the bond of each frame is longer than that of any training frame."""
    positions, species = train.positions.reshape(len(train), 9, 3), train.species[:9]
    oxygen, hydrogens = positions[:, species == 8], positions[:, species == 1]
    return bond(scan) > (hydrogens - oxygen).norm(dim=2).amin(1).max()


def strangest(atoms: Verdict) -> Tensor:
    """Atom of each structure of nine with the smallest p-value; of several with the same, the one of largest score."""
    p_value, score = atoms.p_value.reshape(-1, 9), atoms.score.reshape(-1, 9)
    return score.masked_fill(p_value > p_value.amin(1, keepdim=True), -torch.inf).argmax(1)


def removal_figure(distance: Tensor, atoms: Verdict, domain: CalibratedDomain, train: Structures) -> Figure:
    """p-value of each atom against the length of the bond that breaks; the range of training is shaded."""
    figure, axes = panels((7.2, 3.3), 1, 1)
    panel, order, p_value = axes.flat[0], distance.argsort(), atoms.p_value.reshape(-1, 9)
    positions, species = train.positions.reshape(len(train), 9, 3), train.species[:9]
    trained = (positions[:, species == 1] - positions[:, species == 8]).norm(dim=2).amin(1)
    panel.axvspan(float(trained.min()), float(trained.max()), color=INK, alpha=0.1, linewidth=0, label="trained")
    names = {LEAVING: ("leaving H", BAD, 2.0), PARTNER: ("its O", GOOD, 1.5)}
    for atom in (*(a for a in range(9) if a not in names), *names):
        label, colour, width = names.get(atom, ("others" if atom == 0 else None, INK, 0.5))
        panel.plot(distance[order], p_value[order, atom], color=colour, linewidth=width, label=label)
    least = 1 / (1 + int(domain.atoms.total))
    panel.axhline(least, color=INK, linewidth=0.8, linestyle=":", label="least possible")
    panel.set(xlabel="distance of H from O (Å)", ylabel="p-value of the atom", yscale="log")
    panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)
    return figure


def _strangeness(sets: Sets, level: float, frames: int, seed: int) -> dict[str, Verdict]:
    """Verdicts by the strangeness that the potential itself tells."""
    specification = BayesianACE(cutoffs=(5.0,), channels=(16, 16, 8), mixing=MixingSchedule(steps=20))
    model = specification.fit(sets.train[:frames], seed=seed)
    domain = Domain(level=level).calibrate(model.strangeness(sets.calibration.structures))
    return {part: domain.assess(model.strangeness(_all(sets)[part].structures)) for part in ("test", *sets.probes)}


def _fill(study: Study, key: str, verdicts: dict[str, Verdict], sets: Sets) -> None:
    usual = verdicts["test"]
    study.add(f"{key}_false_alarms", proportion(int((~usual.inside).sum()), len(usual.inside)))
    for part, verdict in verdicts.items():
        if part == "test":
            continue
        strange = _outside(part, sets)
        name = f"{key}_{_plain(part)}"
        study.add(f"{name}_auroc", separation(verdict.score[strange], usual.score))
        study.add(f"{name}_flagged", proportion(int((~verdict.inside[strange]).sum()), int(strange.sum())))


def _outside(part: str, sets: Sets) -> Tensor:
    """Frames of a probe that are outside by what is known without a model: a broken bond; else all of them."""
    scan = sets.probes[part].structures
    return stretched(scan, sets.train.structures) if part == "h-removal" else torch.ones(len(scan), dtype=torch.bool)


def _describer(train: Structures) -> Callable[[Structures], AtomicFeatures]:
    species = tuple(train.species.unique().tolist())
    representation = Representation.random(species, RadialBasis(cutoff=5.0, size=6), (8, 4, 0), (3, 2, 1), seed=0)

    def describe(structures: Structures) -> AtomicFeatures:
        return atomic_features(structures, representation)

    return describe


def _all(sets: Sets) -> dict[str, Labelled]:
    return {"train": sets.train, "calibration": sets.calibration, "test": sets.test, **sets.probes}


def _plain(name: str) -> str:
    return name.replace("-", "_")
