"""One flow is trained for all temperatures of a range."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.flows.counted import Counted
from bayesmol.flows.flow import Flow
from bayesmol.flows.objectives import checked_samples, path_loss
from bayesmol.flows.optimisation import Optimisation
from bayesmol.flows.own_draws import BEGIN, balanced_loss, check_own, mean_one, mixed, remembered, settled
from bayesmol.flows.proposal import Target
from bayesmol.flows.steerable import Steered
from bayesmol.flows.tempering import heated
from bayesmol.flows.training import Training, train
from bayesmol.inference.metropolis import HamiltonianMonteCarlo
from bayesmol.inference.multistate import multistate
from bayesmol.posterior.estimate import kish

__all__ = ["TemperatureSteering"]

_GRID, _PICKED, _DRAWN = 64, 256, 128  # temperatures of a round; samples and draws of the flow for each of them
_TRIED = 128  # samples on which a step is found


@dataclass(frozen=True)
class TemperatureSteering:
    r"""One flow for all temperatures of a range, log-uniform, by forward and reverse divergence.

    .. math:: \int_{\ln T_c}^{\ln T_h} \left[ w_f\,\mathrm{KL}(p_T \| q_T) + w_r\,\mathrm{KL}(q_T \| p_T) \right] d\ln T

    The forward part needs samples of the target at one or several temperatures :math:`T_k`. For every other one they
    are drawn by their weights in the mixture of all (MBAR),

    .. math:: w_T(x) \propto \frac{e^{-U(x)/kT}}{\sum_k N_k\, e^{f_k - U(x)/kT_k}},

    and :math:`w_f` is multiplied by :math:`n / (n + 256)` with their effective number n: samples that do not reach what
    matters at a temperature have no say there. So that none is learnt by heart, some of them move in every round, each
    at its own temperature, and after the first rounds a share of each batch is draws of the flow itself with their
    weights; the energy says how much density is right at each sample and draw
    (:func:`~bayesmol.flows.own_draws.balanced_loss`). Without samples there is the reverse part alone, which starts at
    the hottest temperatures and lets the colder ones in one by one, so that the modes that are open there stay found.

    Attributes
    ----------
    coldest, hottest
        :math:`T_c` and :math:`T_h`, as multiples of the temperature of the target.
    strata
        Temperatures of each step of the reverse part, one from each of so many equal parts of the range.
    forward, reverse
        The weights :math:`w_f, w_r`.
    opening
        Share of the budget after which all temperatures take part, without samples.
    moved, leapfrogs
        Samples that move in a round, and steps of a trajectory; 0 for samples that stay as they are.
    own
        Share of a batch that are draws of the flow itself.
    reference
        Multiple of the temperature of the target at which the latent numbers have unit variance, as in
        :class:`~bayesmol.flows.steerable.Steered`; best where the coordinates were whitened.
    cut
        Above this reduced energy the gradient of the reverse part is that of its logarithm.

    References
    ----------
    Dibak, Klein, Krämer, Noé, Phys. Rev. Research 4, L042005 (2022); Shirts, Chodera, J. Chem. Phys. 129, 124105
    (2008), equation 9 (the weights).
    """

    optimisation: Optimisation = field(default_factory=Optimisation)
    coldest: float = 1.0
    hottest: float = 3.3
    strata: int = 4
    forward: float = 1.0
    reverse: float = 1.0
    opening: float = 0.4
    moved: int = 1024
    leapfrogs: int = 10
    own: float = 0.5
    cut: float = 1e8
    reference: float = 1.0
    rounds: ClassVar[int] = 100

    def __post_init__(self) -> None:
        if not 0 < self.coldest < self.hottest < math.inf:
            raise DataError(expected("coldest, hottest", "an increasing pair", (self.coldest, self.hottest)))
        if not 1 <= self.strata <= self.optimisation.batch or not 0 <= self.opening < 1:
            raise DataError(expected("strata, opening", "at most a batch, and a share below 1", self))
        if min(self.forward, self.reverse) < 0 or self.forward + self.reverse == 0:
            raise DataError(expected("forward, reverse", "weights, not both zero", (self.forward, self.reverse)))
        if not 0 < self.reference < math.inf:
            raise DataError(expected("reference", "a positive number", self.reference))
        check_own(self.own)
        if self.moved < 0 or self.leapfrogs < 1:
            raise DataError(expected("moved, leapfrogs", "a count, and a positive one", (self.moved, self.leapfrogs)))

    def fit(
        self,
        flow: Flow,
        target: Target,
        samples: Float[Tensor, "points dimension"] | None = None,
        temperatures: Float[Tensor, " points"] | None = None,
        *,
        seed: int | torch.Generator,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> Training:
        """Fit the parameters of a flow with one number of context, or with a constant volume, in place.

        Parameters
        ----------
        samples, temperatures
            Draws, and the temperature of each as a multiple of that of the target; all 1 by default.

        Raises
        ------
        DataError, ShapeError
            If the target has no temperature, samples do not fit, or there are none for a forward divergence alone.
        ConvergenceError
            If the samples of neighbouring temperatures do not overlap.
        """
        heated(target, self.hottest)
        if samples is None and self.reverse == 0:
            raise DataError(expected("samples", "draws of the target", None, "or give the reverse part a weight"))
        data = {} if samples is None else self._data(target, checked_samples(samples, flow), temperatures)
        return train(self, flow, target, data=data, cut=self.cut, seed=seed, checkpoint=checkpoint)

    def _data(
        self, target: Target, x: Float[Tensor, "points dimension"], temperatures: Float[Tensor, " points"] | None
    ) -> dict[str, Tensor]:
        """Samples with their energies, the temperatures, and the logarithm of :math:`N_k e^{f_k}` for each of them."""
        given = torch.ones(len(x)) if temperatures is None else temperatures
        if given.shape != (len(x),) or not bool((given > 0).all()):
            raise ShapeError(expected("temperatures", f"{len(x)} positive numbers", tuple(given.shape)))
        ladder, place = given.to(x.device).double().unique(return_inverse=True)
        order = place.argsort(stable=True)
        x, place = x[order], place[order]
        parts = _known(target, x)
        found = multistate(parts["energy"] / ladder.unsqueeze(1), place.bincount())
        data = {"x": x, "place": place, "ladder": ladder, "steps": torch.zeros_like(ladder)}
        return data | parts | {"offsets": found.counts.log() + found.values}

    def refresh(
        self, flow: Flow, target: Counted, data: dict[str, Tensor], turn: int, source: torch.Generator
    ) -> dict[str, Tensor]:
        """Samples of the round for each temperature; without any, the coldest temperature that takes part."""
        if "x" not in data:
            done = min(1.0, turn / (self.opening * self.rounds)) if self.opening else 1.0
            return {"coldest": torch.tensor(self.hottest * (self.coldest / self.hottest) ** done, dtype=torch.float64)}
        if self.moved:
            data = self._renewed(target, data, turn % len(data["ladder"]), source)
        data = data | self._picked(data, source) | {"coldest": torch.tensor(self.coldest, dtype=torch.float64)}
        if not self.own or turn < BEGIN * self.rounds:
            return data
        return remembered(data, self._own(flow, target, source))

    def _renewed(
        self, target: Counted, data: dict[str, Tensor], rung: int, source: torch.Generator
    ) -> dict[str, Tensor]:
        """Some samples of one temperature take a trajectory there; its step is found in the first round."""
        there = (data["place"] == rung).nonzero()[:, 0]
        ratio, step = float(data["ladder"][rung]), float(data["steps"][rung])
        first = step == 0
        count = min(self.moved, _TRIED) if first else self.moved
        rows = there[torch.randperm(len(there), generator=source, device=there.device)[:count]]
        sampler = HamiltonianMonteCarlo(
            step=0.2 * math.sqrt(ratio) if first else step, leapfrogs=self.leapfrogs, warmup=20 * first, draws=1
        )
        with target.replaced(heated(target.target, ratio)):
            walk = sampler.fit(target, data["x"][rows].double(), seed=source)
        steps = data["steps"].clone()
        steps[rung] = walk.step
        moved = {"x": walk.rows.to(data["x"])} | _known(target.target, walk.rows)
        return data | {name: data[name].index_copy(0, rows, value) for name, value in moved.items()} | {"steps": steps}

    def _picked(self, data: dict[str, Tensor], source: torch.Generator) -> dict[str, Tensor]:
        """Samples by their weights at temperatures of the range, how much each of these counts, and log p there."""
        energy = data["energy"]
        mixture = (data["offsets"].unsqueeze(1) - energy / data["ladder"].unsqueeze(1)).logsumexp(0)
        rows, ratios, say, constants = [], self._ratios(_GRID, self.coldest, source), [], []
        for ratio in ratios.tolist():
            log_weights = -energy / ratio - mixture
            rows.append(torch.multinomial(log_weights.softmax(0), _PICKED, replacement=True, generator=source))
            say.append(kish(log_weights))
            constants.append(log_weights.logsumexp(0))
        counts, each = torch.stack(say), ratios.to(energy).repeat_interleave(_PICKED)
        x, energy, rest = (data[name][torch.cat(rows)] for name in ("x", "energy", "rest"))
        log_pi = -energy / each - rest - torch.stack(constants).repeat_interleave(_PICKED)
        weights = (counts / (counts + _PICKED)).repeat_interleave(_PICKED)
        return {"picked_x": x, "picked_weights": weights, "picked_log_pi": log_pi, "picked_ratios": each}

    @torch.no_grad()
    def _own(self, flow: Flow, target: Counted, source: torch.Generator) -> dict[str, Tensor]:
        """Draws of the flow at temperatures of the range, with weights of mean one at each."""
        ratios = self._ratios(_GRID, self.coldest, source).to(source.device).repeat_interleave(_DRAWN)
        x, log_q = settled(*Steered(flow, ratios, self.reference).sample(len(ratios), seed=source))
        energy, rest = _parts(target.target, x)
        target.evaluations += len(x)
        log_weights = -energy / ratios - rest - log_q
        weights = mean_one(log_weights.unflatten(0, (_GRID, _DRAWN))).flatten()
        return {"own_x": x, "own_weights": weights, "own_log_pi": log_q, "own_ratios": ratios}

    def _ratios(self, strata: int, coldest: float, source: torch.Generator) -> Float[Tensor, " strata"]:
        """One temperature of each of so many equal parts of the range."""
        places = torch.rand(strata, generator=source, device=source.device).cpu() + torch.arange(strata)
        return coldest * (self.hottest / coldest) ** (places.double() / strata)

    def loss(
        self, flow: Flow, target: Counted, data: dict[str, Tensor], source: torch.Generator
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""] | None]:
        """Forward divergence of samples of many temperatures, and the reverse one at a temperature of each stratum."""
        total = torch.zeros((), device=source.device)
        if "x" in data and self.forward:
            total = total + self.forward * self._forward(flow, data, source)
        if self.reverse:
            total = total + self.reverse * self._reverse(flow, target, float(data["coldest"]), source)
        return total, None

    def _forward(self, flow: Flow, data: dict[str, Tensor], source: torch.Generator) -> Float[Tensor, ""]:
        samples = {name: data[f"picked_{name}"] for name in ("x", "weights", "log_pi", "ratios")}
        count, (x, weights, log_pi, ratios) = mixed(samples, data, self.own, self.optimisation.batch, source)
        return balanced_loss(Steered(flow, ratios, self.reference).log_prob(x), weights, log_pi, count)

    def _reverse(self, flow: Flow, target: Counted, coldest: float, source: torch.Generator) -> Float[Tensor, ""]:
        losses = []
        for ratio in self._ratios(self.strata, coldest, source).tolist():
            with target.replaced(heated(target.target, ratio)):
                steered = Steered(flow, ratio, self.reference)
                losses.append(path_loss(steered, target, self.optimisation.batch // self.strata, source)[0])
        return torch.stack(losses).mean()


def _known(target: Target, x: Float[Tensor, "points dimension"]) -> dict[str, Tensor]:
    """Both parts of the reduced energy of samples.

    Raises
    ------
    DataError
        If an energy is not finite.
    """
    energy, rest = _parts(target, x)
    if not bool(torch.isfinite(energy + rest).all()):
        raise DataError(expected("samples", "rows with finite energies", "others"))
    return {"energy": energy, "rest": rest}


@torch.no_grad()
def _parts(target: Target, x: Float[Tensor, "points dimension"]) -> tuple[Tensor, Tensor]:
    """The part of the reduced energy that falls with the temperature, from how much it falls as 1 / T halves; the rest.

    NaN where there is no energy.
    """
    whole = target.reduced_energy(x).double()
    falling = 2 * (whole - heated(target, 2.0).reduced_energy(x).double())
    return falling, whole - falling
