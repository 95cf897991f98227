"""One chain of n-butane, from labels to a free energy and a timescale, and what is kept of it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from scales_molecules_sampling import Motion, keep, kept, lags, like, timescale, torsion
from scales_molecules_stages import (
    BINS,
    DISTRIBUTION,
    DRAWN,
    METHYL,
    SCANNED,
    Settings,
    audited,
    believed,
    density_of,
    draws_of,
    flow,
    gauche_free_energy,
    learned,
    moved,
    same,
    some,
    unsigned,
)
from torch import Tensor

from bayesmol.certified import CertifiedModel
from bayesmol.data import Structures
from bayesmol.errors import ConvergenceError
from bayesmol.posterior import Draws

__all__ = ["Chain", "chain"]

FACTS = ("calls", "moves", "stopped", "inside", "effective", "trusted", "energy_error", "force_error", "covered", "kt")


@dataclass(frozen=True, eq=False)
class Chain:
    """One way from labels to kinetics, as numbers.

    Attributes
    ----------
    energies, times
        Draws of the free energy of gauche less that of trans (kT) and of the relaxation time (ps) on the learned
        surface: their spread is the error of sampling.
    shifts
        Draws of the logarithms by which labels change the populations of trans, gauche and the barrier.
    posterior
        Standard deviations of the free energy (kT) and of the logarithm of the time by the posterior of the potential.
    profile, profile_errors
        Free energy along the torsion without its sign in kT, and its standard errors, of sampling and with the
        potential's.
    map
        Shares of the torsions of the carbons and of a methyl group.
    lags
        Lag, lower end, mean and upper end of the 90 % interval of the time at each lag, in ps.
    facts
        Numbers by the names of ``FACTS``.
    """

    energies: Float[Tensor, " draws"]
    times: Float[Tensor, " draws"]
    shifts: Float[Tensor, "draws 3"]
    posterior: Float[Tensor, " 2"]
    profile: Float[Tensor, " bins"]
    profile_errors: Float[Tensor, "2 bins"]
    map: Float[Tensor, "bins bins"]
    lags: Float[Tensor, "lags 4"]
    facts: Float[Tensor, " facts"]

    @property
    def fact(self) -> dict[str, float]:
        """Facts by name."""
        return dict(zip(FACTS, self.facts.tolist(), strict=True))

    @property
    def free_energy(self) -> Float[Tensor, " draws"]:
        """Of gauche less trans by the reference, in kT, with all errors."""
        return self.energies + self.shifts[:, 0] - self.shifts[:, 1]

    @property
    def slowing(self) -> Float[Tensor, " draws"]:
        r"""Logarithm of the time by the reference over that on the learned surface.

        By transition-state theory :math:`\tau \propto P_t P_g / P_b` with the populations of both states and of the
        barrier. The share of crossings that turn back is taken to be the same on both surfaces.
        """
        gauche = torch.sigmoid(-self.energies)
        trans, other, barrier = self.shifts.unbind(1)
        return trans + other - barrier - torch.logaddexp(trans + (1 - gauche).log(), other + gauche.log())

    @property
    def timescale(self) -> Float[Tensor, " draws"]:
        """By the reference, in ps, with all errors."""
        return self.times * self.slowing.exp()


def chain(folder: Path, settings: Settings, *, seed: int) -> Chain:
    """From labels to a free energy and a timescale; the folder keeps every stage that is done."""
    folder.mkdir(parents=True, exist_ok=True)
    same(folder, {**asdict(settings), "seed": seed})
    path = folder / "chain.npz"
    if not path.exists():
        keep(path, **vars(_calculated(folder, settings, seed)))
    return Chain(**kept(path))


def _long_enough(
    folder: Path, model: CertifiedModel, start: Structures, settings: Settings, seed: int
) -> tuple[Motion, Draws]:
    """Dynamics and its relaxation time; twice and four times as long where that rests on too few events."""
    for _ in range(2):
        run = moved(folder, model, start, settings, seed)
        with suppress(ConvergenceError):
            return run, timescale(run, seed=seed)
        settings = replace(settings, picoseconds=2 * settings.picoseconds)
    run = moved(folder, model, start, settings, seed)
    return run, timescale(run, seed=seed)


def _calculated(folder: Path, settings: Settings, seed: int) -> Chain:
    model, start = learned(folder, settings, seed)
    run, times = _long_enough(folder, model, start, settings, seed)
    frames = run.settled.transpose(0, 1)
    density = density_of(model, start, settings.temperature)
    drawn = draws_of(flow(folder, density, frames, settings.training, seed), density, DRAWN, seed)
    shifts, checks = audited(folder, model, frames, settings, seed)
    posterior, band = believed(density, drawn, frames, seed)
    profile = drawn.profile(lambda x: unsigned(x.unflatten(1, (-1, 3))), bins=BINS, span=(0.0, 180.0)).free_energy
    error = profile.standard_error
    inside = model.predict(like(start[0], some(frames, 500, seed))).inside.double().mean()
    known = [SCANNED + settings.labels + checks[0], run.calls, run.stopped, inside]
    known += [drawn.effective.effective / DRAWN, drawn.verdict[0] != "red", *checks[1:], density.kt]
    return Chain(
        energies=gauche_free_energy(drawn, seed),
        times=times.values.flatten()[:DISTRIBUTION],
        shifts=shifts.values[0],
        posterior=posterior,
        profile=profile.value,
        profile_errors=torch.stack([error, (error.square() + band.square()).sqrt()]),
        map=_map(frames),
        lags=_at_lags(run, seed),
        facts=torch.tensor([float(x) for x in known], dtype=torch.float64),
    )


def _map(frames: Tensor) -> Float[Tensor, "bins bins"]:
    angles = torch.stack([torsion(frames), torsion(frames, METHYL)], -1).flatten(0, 1).double()
    counts = torch.histogramdd(angles, 2 * BINS, range=[-180.0, 180.0] * 2).hist
    return counts / counts.sum()


def _at_lags(run: Motion, seed: int) -> Float[Tensor, "lags 4"]:
    found = lags(run, seed=seed)
    ends = [(one.interval(0.9), one.mean) for one in found.timescales]
    rows = [
        [lag, float(band.lower[0]), float(mean[0]), float(band.upper[0])]
        for lag, (band, mean) in zip(found.lags, ends, strict=True)
    ]
    return torch.tensor(rows, dtype=torch.float64)
