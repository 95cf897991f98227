"""May the mean of these local energies be believed? Checks, each a number with a limit, a verdict and a sentence."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from bayesmol.inference.checks import Check
from bayesmol.wavefunctions.energy_checks import Drift, Mixing, drift, longest_standstill, mixing, tail_index

if TYPE_CHECKING:
    from bayesmol.wavefunctions.energy import Energy

__all__ = ["ORDER", "EnergyVerdict", "judged"]

EnergyVerdict = Literal["ok", "suspect", "refused"]
ORDER: tuple[EnergyVerdict, ...] = ("ok", "suspect", "refused")
_EXACT = 1e-10  # relative spread of local energies below which all that is left is rounding
R_HAT, EFFECTIVE, GAP, ACCEPTANCE, TAIL = 1.01, 400.0, (3.0, 4.0), (0.05, 0.02), (0.5, 0.7)


def judged(energy: Energy) -> tuple[Check[EnergyVerdict], ...]:
    r"""All checks of an energy.

    Refused: local energies that are not finite; :math:`\hat R > 1.01` beyond chance; halves of the run that differ by
    more than four standard errors; ESS < 400; :math:`|T_F - T_P|` above four standard errors; a walker that stands
    still; acceptance below 2 %; a tail with k > 0.7 and surely above 1/2, where the variance is infinite and no
    standard error exists. Suspect: :math:`\hat R > 1.01` within chance; a gap above three errors; acceptance below
    5 %; k > 1/2; error estimates that contradict each other. Walkers are judged by local energy and log-density,
    which do not change when electrons change places; a coordinate of one electron never mixes.

    References
    ----------
    Vehtari, Gelman, Simpson, Carpenter, Bürkner, Bayesian Analysis 16, 667 (2021) (1.01 and 400); Vehtari, Simpson,
    Gelman, Yao, Gabry, J. Mach. Learn. Res. 25, 72 (2024) (k of 0.7).
    """
    bad = int((~torch.isfinite(energy.local)).sum())
    share = f"{bad} of {energy.local.numel()} local energies are not finite"
    finite: Check[EnergyVerdict] = Check("not finite", float(bad), 0.0, "refused" if bad else "ok", share)
    if bad:
        return (finite, *(Check[EnergyVerdict](n, math.nan, math.nan, "ok", "not computed") for n in ("R-hat", "tail")))
    watched = [part for part in (energy.log_density,) if part is not None]
    spread = float((energy.local - energy.local.median()).abs().mean())
    exact = spread <= _EXACT * max(1.0, abs(float(energy.local.median())))
    if not exact:
        watched.append(energy.local)
    return (
        finite,
        _mixing_check(watched),
        _drift_check(watched),
        _effective_check(energy),
        _errors_check(energy, exact),
        _gap_check(energy),
        _standstill_check(watched),
        _acceptance_check(energy.acceptance),
        _tail_check(energy.local, exact),
    )


def _level(value: float, suspect: float, refused: float) -> EnergyVerdict:
    """Larger is worse; NaN is refused."""
    return "ok" if value <= suspect else "suspect" if value <= refused else "refused"


def _mixing_check(watched: list[Tensor]) -> Check[EnergyVerdict]:
    found = [mixing(part) for part in watched]
    one = max(found, key=lambda one: one.r_hat - max(one.chance - R_HAT, 0.0), default=Mixing(1.0, 1.0))
    level = _level(one.r_hat, R_HAT, max(R_HAT, one.chance))
    sentence = f"walkers disagree: R-hat {one.r_hat:.3f} > {R_HAT}"
    sentence += ", which chance explains in so short a run; sample longer" if level == "suspect" else ""
    return Check("R-hat", one.r_hat, R_HAT, level, "walkers agree" if level == "ok" else sentence)


def _drift_check(watched: list[Tensor]) -> Check[EnergyVerdict]:
    one = max((drift(part) for part in watched), key=lambda d: abs(d.statistic) / d.limit, default=Drift(0.0, 4.0))
    level = _level(abs(one.statistic), one.limit, one.limit)
    said = f"not in equilibrium: the halves of the run differ by {abs(one.statistic):.1f} standard errors"
    return Check("drift", one.statistic, one.limit, level, "both halves agree" if level == "ok" else said)


def _effective_check(energy: Energy) -> Check[EnergyVerdict]:
    effective = energy.effective_sample_size
    level: EnergyVerdict = "ok" if effective >= EFFECTIVE else "refused"
    sentence = f"worth {effective:.0f} independent draws" + ("" if level == "ok" else f", fewer than {EFFECTIVE:.0f}")
    return Check("effective sample size", effective, EFFECTIVE, level, sentence)


def _errors_check(energy: Energy, exact: bool) -> Check[EnergyVerdict]:
    errors = energy.errors
    sharpest = errors.sharpest
    ratio = 1.0 if exact or sharpest.value == 0 else errors.largest.value / sharpest.value
    apart = ratio > 1.5 and any(one.exceeds(sharpest, 0.999) for one in errors.known)
    if not exact and math.isnan(errors.reblocking.value):
        sentence = "the run is not much longer than its correlation: no blocks are independent"
        return Check("error estimates", math.inf, 1.5, "suspect", sentence)
    said = f"error estimates differ by a factor of {ratio:.1f}"
    return Check("error estimates", ratio, 1.5, "suspect" if apart else "ok", said)


def _gap_check(energy: Energy) -> Check[EnergyVerdict]:
    z = energy.kinetic_gap.z
    level = _level(abs(z), *GAP)
    said = f"kinetic energies differ by {z:.1f} standard errors: wrong derivatives or not sampled from |ψ|²"
    return Check("kinetic gap", z, GAP[1], level, "kinetic energies agree" if level == "ok" else said)


def _standstill_check(watched: list[Tensor]) -> Check[EnergyVerdict]:
    found = [longest_standstill(part) for part in watched[:1]]
    longest, limit = found[0] if found else (0, math.inf)
    level = _level(longest, limit, limit)
    said = "no walker is stuck" if level == "ok" else f"a walker did not move for {longest} draws"
    return Check("standstill", float(longest), limit, level, said)


def _acceptance_check(acceptance: float) -> Check[EnergyVerdict]:
    level = _level(-acceptance, -ACCEPTANCE[0], -ACCEPTANCE[1])
    return Check("acceptance", acceptance, ACCEPTANCE[0], level, f"{100 * acceptance:.3g} % of the moves were accepted")


def _tail_check(local: Tensor, exact: bool) -> Check[EnergyVerdict]:
    k, error = (-math.inf, 0.0) if exact else tail_index(local)
    refused = k > TAIL[1] and k - 2 * error > TAIL[0]
    level: EnergyVerdict = "refused" if refused else "suspect" if k > TAIL[0] else "ok"
    said = f"local energies have a heavy tail: Pareto k {k:.2f} > {TAIL[0]}, their variance may be infinite"
    return Check("tail", k, TAIL[0], level, "tails allow a standard error" if level == "ok" else said)
