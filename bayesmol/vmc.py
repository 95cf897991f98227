"""The ``vmc`` command: the ground-state energy of a molecule from a neural wavefunction, and whether to trust it."""

import hashlib
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

import bayesmol as bm
from bayesmol.errors import DataError, expected
from bayesmol.options import check_output
from bayesmol.report import Study, page, write_text

if TYPE_CHECKING:
    from bayesmol.wavefunctions.energy import Energy
    from bayesmol.wavefunctions.report import Judged

__all__ = ["evaluated", "molecule_of", "specification", "tell", "vmc"]

PACKAGES = ("jax", "jaxlib", "numpyro", "pyscf", "torch", "numpy", "scipy", "ase")
TRAINING = 0.75  # of the minutes; the rest is for the evaluation
TRIAL_DRAWS, LEAST, MOST = 20, 200, 8000

Source = Annotated[
    str,
    typer.Argument(
        help="A geometry in a format of ASE, the name of a molecule such as LiH, or a wavefunction that was saved.",
        show_default=False,
    ),
]
Minutes = Annotated[
    float,
    typer.Option(help="Wall time, three quarters of it to train; the evaluation takes 200 draws at least.", min=0.01),
]
Kind = Annotated[
    Literal["paulinet", "slater-jastrow", "ferminet"],
    typer.Option(help="Orbitals and a graph network; fixed orbitals; no orbitals."),
]
Determinants = Annotated[int | None, typer.Option(help="Number of determinants; default: that of the ansatz.", min=1)]
Charge = Annotated[int, typer.Option(help="Of the molecule, in elementary charges.")]
Spin = Annotated[int | None, typer.Option(help="Unpaired electrons; default: ground state of an atom, else 0 or 1.")]
Number = Annotated[int | None, typer.Option(help="Draws of each walker; default: what the minutes allow.", min=50)]
Page = Annotated[Path | None, typer.Option("--report", help="Write a page with plots (HTML).", show_default=False)]
Model = Annotated[
    Path | None, typer.Option("--out", "--output", "-o", help="Write the wavefunction.", show_default=False)
]


def vmc(
    study: Study,
    source: Source,
    minutes: Minutes = 10.0,
    ansatz: Kind = "paulinet",
    determinants: Determinants = None,
    charge: Charge = 0,
    spin: Spin = None,
    draws: Number = None,
    out: Model = None,
    report: Page = None,
) -> Study:
    """Ground-state energy of a molecule by variational Monte Carlo, with a standard error and a verdict on it.

    The energy is that of the trained wavefunction, from walks made after the training: an upper bound of the exact one
    up to its error. Refused energies are not printed. Killed at any point, the same command goes on where it was; its
    checkpoint is removed at the end.

    Examples:

    \b
    bayesmol vmc LiH --minutes 10 --report lih.html
    bayesmol vmc water.xyz --minutes 30 --determinants 8 -o water.bm --json water.json
    bayesmol vmc radical.xyz --charge 1 --spin 1
    bayesmol vmc water.bm --draws 4000 --seed 1
    """
    from bayesmol.wavefunctions.precision import placed

    clock, seed = time.monotonic(), study.settings["seed"]
    study.packages = PACKAGES
    _check_page(report)
    with placed(study.settings["device"]):
        wavefunction, checkpoint = _wavefunction(study, source, minutes, ansatz, determinants, (charge, spin), out)
        with study.stage("evaluate"):
            judged = evaluated(wavefunction, draws, 60 * minutes - (time.monotonic() - clock), seed)
        tell(study, judged)
        if report is not None:
            with study.stage("report"):
                write_text(report, _page(study, judged, source))
            study.notes.append(f"written: {report}")
    if out is not None and out != Path(source):
        bm.save(wavefunction, out)
        study.notes.append(f"written: {out}")
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return study


def _wavefunction(
    study: Study,
    source: str,
    minutes: float,
    ansatz: str,
    determinants: int | None,
    electrons: tuple[int, int | None],
    out: Path | None,
) -> tuple[Any, Path | None]:
    """The saved wavefunction of SOURCE, or one that is trained here, with the file of the state of its training."""
    from bayesmol.wavefunctions.fitted import FittedWavefunction

    seed = study.settings["seed"]
    if source.endswith(".bm"):
        known = bm.load(source)
        if not isinstance(known, FittedWavefunction):
            raise DataError(expected("SOURCE", "a wavefunction", type(known).__name__))
        return known, None
    molecule, spec = molecule_of(source, *electrons), specification(ansatz, determinants)
    checkpoint = _checkpoint(source, out, molecule, spec, seed)
    if checkpoint.exists():
        study.notes.append(f"training goes on from {checkpoint}")
    with study.stage("train"):
        return spec.fit(molecule, seed=seed, minutes=TRAINING * minutes, checkpoint=checkpoint), checkpoint


def molecule_of(source: str, charge: int, spin: int | None) -> Any:
    """From a file if there is one, else by name."""
    from dataclasses import replace

    from bayesmol.wavefunctions.molecule import Molecule

    if Path(source).exists():
        import ase.io

        return Molecule.from_ase(cast(Any, ase.io.read(source)), charge=charge, spin=spin)
    molecule = Molecule.named(source)
    if charge and spin is None:
        return Molecule.from_ase(molecule.to_ase(), charge=charge)
    return replace(molecule, charge=charge, spin=molecule.spin if spin is None else spin)


def specification(name: str, determinants: int | None) -> Any:
    """The ansatz of this name."""
    from bayesmol.wavefunctions.fermi_net import FermiNet
    from bayesmol.wavefunctions.pauli_net import PauliNet, SlaterJastrow

    kinds: dict[str, Any] = {"paulinet": PauliNet, "slater-jastrow": SlaterJastrow, "ferminet": FermiNet}
    return kinds[name]() if determinants is None else kinds[name](determinants=determinants)


def _checkpoint(source: str, out: Path | None, molecule: Any, spec: Any, seed: int) -> Path:
    """A name of its own for each training, beside OUT where there is one; the minutes may change."""
    numbers = (molecule.charges.tolist(), molecule.positions.tolist(), molecule.charge, molecule.spin)
    digest = hashlib.sha256(repr((numbers, spec, seed)).encode()).hexdigest()[:8]
    folder = Path() if out is None else out.parent
    return folder / f"{Path(source).stem if out is None else out.name}.{digest}.training"


def _check_page(path: Path | None) -> None:
    """Only a page of an earlier run is replaced."""
    if path is not None:
        check_output("--report", path, force=path.exists() and b"bayesmol" in path.read_bytes()[:300])


def evaluated(wavefunction: Any, draws: int | None, seconds: float, seed: int) -> "Judged":
    """Energy of the wavefunction and of its snapshots, in about the seconds that are left."""
    from bayesmol.wavefunctions.report import Judged, snapshot_energies

    began = time.monotonic()
    positions = wavefunction.sample(10, seed=seed).values[:, -1].numpy()  # compiles
    start = time.monotonic()
    wavefunction.evaluation.energy(wavefunction.parameters, positions, TRIAL_DRAWS, seed=seed)
    now = time.monotonic()
    if draws is None:
        possible = TRIAL_DRAWS * (seconds - (now - began)) / (now - start)
        draws = int(min(max(0.7 * possible, LEAST), MOST))
    count = len(wavefunction.trained.snapshots)
    fewer = max(TRIAL_DRAWS, draws // (3 * count)) if count else 0
    earlier = snapshot_energies(wavefunction, draws=fewer, seed=seed + 2, walkers=positions)
    return Judged(wavefunction, wavefunction.energy(draws, seed=seed + 1), earlier)


def tell(study: Study, judged: "Judged") -> None:
    """Fill in the figures, the title and the sentences."""
    wavefunction, energy = judged.wavefunction, judged.energy
    usable = energy.verdict != "refused"
    study.add("energy_hartree", energy.estimate if usable else math.nan, *([] if usable else ["Ha"]))
    study.add("standard_error_hartree", float(energy.estimate.standard_error), "Ha")
    study.add("variance", energy.variance)
    if judged.hartree_fock is not None:
        study.add("hartree_fock_hartree", judged.hartree_fock, "Ha")
    if judged.known is not None and usable:
        study.add("exact_hartree", judged.known.energy, "Ha")
        error = 1000 * (float(energy.estimate.value) - judged.known.energy)
        study.add("energy_error_mha", error, "mHa", error=1000 * float(energy.estimate.standard_error))
    if judged.correlation is not None:
        study.add("correlation_fraction", judged.correlation[0], error=judged.correlation[1])
    _tell_extrapolated(study, judged)
    for name in ("r_hat", "effective_sample_size", "pareto_k", "acceptance"):
        study.add(name, float(getattr(energy, name)))
    study.add("kinetic_gap_z", energy.kinetic_gap.z)
    history = wavefunction.trained.history
    study.add("iterations", len(history.energy))
    study.add("iterations_per_second", _rate(history.seconds), "1/s")
    study.title = f"{wavefunction.molecule}: {energy}"
    study.notes += [f"{energy.verdict}: {reason}" for reason in energy.reasons]
    study.notes += _sentences(judged, energy)


def _tell_extrapolated(study: Study, judged: "Judged") -> None:
    found = judged.extrapolated
    if found.energy is None:
        study.notes.append(f"no extrapolation to variance zero: {found.reason}")
        return
    interval = found.interval(0.95)
    study.add("extrapolated_hartree", float(found.energy.mean), "Ha", error=float(found.energy.stddev))
    study.notes.append(
        f"extrapolated to variance zero: {float(interval.lower):.5f} to {float(interval.upper):.5f} Ha (95 %); "
        f"{interval.guarantee}"
    )


def _sentences(judged: "Judged", energy: "Energy") -> list[str]:
    notes = [f"training: {judged.wavefunction.trained.reason}"] if judged.wavefunction.trained.reason else []
    if judged.below_bound:
        notes.append("below the exact energy by more than 3 standard errors, which no true mean can be: do not use it")
    if energy.verdict != "refused":
        notes.append("the energy of a wavefunction is an upper bound of the exact one, up to the standard error")
    return notes


def _rate(seconds: Any) -> float:
    """Steps per second in the second half of the training, so without compilation."""
    half = len(seconds) // 2
    passed = float(seconds[-1] - seconds[half])
    return (len(seconds) - 1 - half) / passed if passed > 0 else math.nan


def _page(study: Study, judged: "Judged", source: str) -> str:
    wavefunction, energy = judged.wavefunction, judged.energy
    reference = wavefunction.trial.reference
    facts = {
        "molecule": f"{wavefunction.molecule} from {source}, {wavefunction.molecule.electrons} electrons",
        "ansatz": repr(wavefunction.ansatz),
        "orbitals": "none" if reference is None else reference.method,
        "evaluation": f"{energy.local.shape[0]} walkers, {energy.local.shape[1]} draws, {energy.steps} moves apart",
    }
    guarantees = {f"{check.name} ({check.level})": check.sentence for check in energy.checks}
    lead = f"{energy}. Variational Monte Carlo; the verdict is {energy.verdict}."
    plots = judged.plots(seed=study.settings["seed"] + 3)
    return page(study, f"{wavefunction.molecule}: ground-state energy", lead, plots, facts=facts, guarantees=guarantees)
