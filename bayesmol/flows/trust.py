"""May the draws of this proposal be believed? A report of green, amber and red lights, each with its number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import ConvergenceError, ShapeError, expected
from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.discovery import Discovery, Expedition, Sample, located, missed, sampled
from bayesmol.flows.proposal import Proposal
from bayesmol.flows.trust_checks import ORDER, Evidence, Light, checks
from bayesmol.inference.blocks import block_length
from bayesmol.inference.checks import Check, worst
from bayesmol.inference.random import generator

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["TrustReport", "diagnose"]

_COLOURS = {"green": "#2a9d4a", "amber": "#e09f3e", "red": "#d1495b"}
_LEAST = -8.0  # log-weight below which a draw counts nothing, and is drawn here


@dataclass(frozen=True, eq=False)
class TrustReport:
    """Whether estimates from a proposal can be trusted; prints as a table.

    A green report is no proof: a region that no chain reached, behind barriers much higher than the raised temperatures
    of the chains, is not seen by anything here.

    Attributes
    ----------
    checks
        Numbers with limits and lights.
    log_weights, scores
        :math:`\\ln w` and :math:`-\\ln q` at draws of the proposal.
    forward
        :math:`\\ln w` at a sample of the density; ``None`` if there is none.
    walkers
        :math:`-\\ln q` where the chains ended; ``None`` without chains.
    """

    checks: tuple[Check[Light], ...]
    log_weights: Float[Tensor, " draws"]
    scores: Float[Tensor, " draws"]
    forward: Float[Tensor, " forward"] | None
    walkers: Float[Tensor, " walkers"] | None

    @property
    def verdict(self) -> Light:
        """The worst light."""
        return worst(self.checks, ORDER)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the verdict is what it is: the sentences of the checks that have its light, if it is not green."""
        if self.verdict == "green":
            return ()
        return tuple(check.sentence for check in self.checks if check.level == self.verdict)

    def __getitem__(self, name: str) -> Check[Light]:
        """The check of this name."""
        found = {check.name: check for check in self.checks}
        if name not in found:
            raise KeyError(expected("check", f"one of {sorted(found)}", name))
        return found[name]

    def __str__(self) -> str:
        wide = max(len(check.name) for check in self.checks)
        lines = [
            f"{check.level:5}  {check.name:{wide}}  {check.value:>10.3g}  (limit {check.limit:.3g})  {check.sentence}"
            for check in self.checks
        ]
        return "\n".join([f"{self.verdict}: from {len(self.log_weights)} draws", *lines])

    def content(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "draws": len(self.log_weights),
            "checks": [check.content() for check in self.checks],
        }

    def plot(self) -> Figure:
        """Log-weights at draws of the proposal and of the density, and how strange the chains' ends are to it."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.2, 3.0), layout="constrained")
        left, right = figure.subplots(1, 2)
        finite = self.log_weights[torch.isfinite(self.log_weights)]
        centre = float(finite.logsumexp(0)) - torch.tensor(len(self.log_weights)).double().log().item()
        weights = (finite - centre).clamp(min=_LEAST)
        _histograms(left, (weights, "proposal"), (_moved(self.forward, centre), "density"))
        left.set_xlabel(f"ln w − ln Z, no less than {_LEAST:g}")
        _histograms(right, (self.scores, "draws"), (self.walkers, "ends of chains"))
        right.set_xlabel("−ln q")
        figure.suptitle(f"{self.verdict}", color=_COLOURS[self.verdict])
        return figure


def diagnose(
    proposal: Proposal,
    density: BoltzmannDensity,
    *,
    reference: Float[Tensor, "rows dimension"] | None = None,
    draws: int = 10_000,
    discovery: Discovery | None = None,
    seed: int | torch.Generator,
) -> TrustReport:
    """Check a proposal against a density by its own draws, by Markov chains, and by a reference if there is one.

    What is known exactly of a model density is not used.

    Parameters
    ----------
    reference
        Draws of the density, in the order of their simulation; without them, short chains from resampled draws of the
        proposal stand in.
    draws
        Of the proposal; tails are judged by them.
    discovery
        How chains look for missed regions.

    Raises
    ------
    ShapeError, DataError
        If rows do not fit, or the proposal gives NaN.
    """
    source = generator(seed, _device(proposal))
    own = sampled(proposal, density, draws, source)
    virial = _virial(own, density)
    chains = (discovery or Discovery()).fit(proposal, density, own, seed=source) if _smooth(own, density) else None
    forward, block, origin, outside = _forward(proposal, density, own, reference, chains)
    members = tuple(
        sampled(member, density, max(draws // 5, 1000), source).log_weights
        for member in getattr(proposal, "members", ())
    )
    evidence = Evidence(own, virial, forward, block, origin, chains, outside, members)
    walkers = None if chains is None else -chains.walkers.log_q
    return TrustReport(checks(evidence, density, seed=source), own.log_weights, -own.log_q, forward, walkers)


def _device(proposal: Proposal) -> torch.device:
    parameters = getattr(getattr(proposal, "flow", proposal), "parameters", None)
    first = None if parameters is None else next(iter(parameters()), None)
    return torch.device("cpu") if first is None else first.device


def _smooth(own: Sample, density: BoltzmannDensity) -> bool:
    """Whether the energy can be differentiated."""
    row = own.rows[torch.isfinite(own.energy)][:1]
    try:
        density.reduced_gradient(row)
    except RuntimeError:
        return False
    return True


def _virial(own: Sample, density: BoltzmannDensity) -> Tensor | None:
    """x·∇u of each draw, if the theorem holds: no angles, no walls inside of the draws."""
    circular = getattr(density, "circular", None)
    walls = bool((torch.isinf(own.energy) & torch.isfinite(own.log_q)).any())
    if walls or (circular is not None and bool(circular.any())) or not _smooth(own, density):
        return None
    usable = torch.isfinite(own.energy)
    parts = [(part * density.reduced_gradient(part)[1]).sum(1) for part in own.rows.split(8192)]
    return torch.where(usable, torch.cat(parts).double(), 0.0)


def _forward(
    proposal: Proposal, density: BoltzmannDensity, own: Sample, reference: Tensor | None, chains: Expedition | None
) -> tuple[Tensor | None, int, str, float | None]:
    if reference is None:
        return (None, 1, "", None) if chains is None else (chains.plain.log_weights, 1, "ends of short chains", None)
    if reference.ndim != 2 or reference.shape[1] != density.dimension or len(reference) < 8:
        raise ShapeError(expected("reference", f"(rows, {density.dimension}), at least 8", tuple(reference.shape)))
    with torch.no_grad():
        log_q = proposal.log_prob(reference.to(own.rows)).nan_to_num(nan=-torch.inf, neginf=-torch.inf)
    known = located(reference.to(own.rows), log_q, density)
    # Where the proposal has no density at all the weight is infinite; for the correlation any large number will do.
    finite = known.log_weights[torch.isfinite(known.log_weights)]
    try:
        block = block_length(known.log_weights.clamp_max(float(finite.max()) if len(finite) else 0.0).unsqueeze(0))
    except ConvergenceError:
        block = max(len(reference) // 10, 1)
    return known.log_weights, block, "draws of the reference", float(missed(own)(known).double().mean())


def _moved(values: Tensor | None, centre: float) -> Tensor | None:
    return None if values is None else values[torch.isfinite(values)] - centre


def _histograms(axes: Any, *named: tuple[Tensor | None, str]) -> None:
    for values, name in named:
        if values is not None and len(values):
            shown = values[torch.isfinite(values)].detach().double().cpu().numpy()
            axes.hist(shown, bins=60, density=True, histtype="step", label=name)
    axes.set_yscale("log")
    axes.legend(fontsize="small", frameon=False)
