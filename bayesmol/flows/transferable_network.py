"""The network of a kernel that is shared by molecules: densities of bonds, angles and torsions, atom after atom."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesmol.flows.transferable_context import FLAGS, RELATIONS, Contexts

__all__ = ["Kernel"]

_CONTEXT, _FEATURES = 8, 5
_SPREADS = (0.03, 0.095, 0.12)  # usual deviations of the logarithm of a bond, the logit of an angle, and a torsion
_REACH, _BOUND = 5.0, 2.2  # of a mean, in usual deviations; of the logarithm of a deviation
_WIDEST = 0.8  # rad of a component on a circle, before e^½ at most


class _Laws(NamedTuple):
    """What the graph alone says of each group: tensors with the axes molecules, (rows,) groups."""

    code: Tensor
    mean: Tensor
    log_scale: Tensor
    within: Tensor
    places: Tensor
    widths: Tensor
    logits: Tensor
    known: Tensor
    circular: Tensor
    turning: Tensor
    centre: Tensor

    def at(self, group: int) -> _Laws:
        """Of one group, with its axis."""
        return _Laws(*(q[:, :, group : group + 1] for q in self))


class _Local(NamedTuple):
    """What the geometry placed before adds to them."""

    shift: Tensor
    spread: Tensor
    logits: Tensor


class Kernel(nn.Module):
    r"""Density of one molecule after another, with one set of weights.

    .. math:: p(v \mid G) = \prod_i p(\ell_i \mid C_i)\, p(t_i \mid \ell_i, C_i)\, p(\phi_i \mid \ell_i, t_i, C_i)

    for the logarithm of the bond, the logit of the angle, and the torsion of each atom. The context :math:`C_i` is the
    molecular graph, seen by rounds of messages along bonds, and the coordinates of the atoms placed before. The first
    two are Gaussians, torsions mixtures of wrapped Gaussians. Their means depend linearly on the standardised
    coordinates before, with coefficients from the graph, and so on all three by a small network.

    Parameters
    ----------
    width, hidden
        Numbers that describe an atom, and a group of coordinates.
    components
        Of the mixtures on circles.
    rounds
        Of messages along bonds.
    """

    grid: Tensor
    images: Tensor

    def __init__(self, *, width: int = 16, hidden: int = 32, components: int = 6, rounds: int = 1) -> None:
        super().__init__()
        self.shape = {"width": width, "hidden": hidden, "components": components, "rounds": rounds}
        self.embedding = nn.Embedding(119, width, padding_idx=0)
        self.degree = nn.Embedding(6, width)
        self.messages = nn.ModuleList([nn.Linear(2 * width, width) for _ in range(rounds)])
        self.encoder = nn.Sequential(nn.Linear(4 * width + FLAGS, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.bond = _head(2 * width, 2)
        self.bend = _head(3 * width, 2)
        self.turn = _last(nn.Linear(hidden, 4 + 3 * components))
        self.first, self.second = nn.Linear(hidden, 24), nn.Linear(hidden, 24)
        self.relation = nn.Linear(RELATIONS, 24)
        self.pair = _last(nn.Linear(24, (3 + _CONTEXT) * _FEATURES), 0.1)
        inner = [nn.Linear(hidden + _CONTEXT, 32), nn.SiLU(), _last(nn.Linear(32, 6 + components))]
        self.local = nn.Sequential(*inner)
        grid = torch.arange(components) * (2 * math.pi / components)
        self.register_buffer("grid", grid)
        self.register_buffer("images", 2 * math.pi * torch.arange(-1, 2))  # 7 deviations

    def log_prob(
        self, contexts: Contexts, values: Float[Tensor, "molecules rows groups 3"]
    ) -> Float[Tensor, "molecules rows"]:
        """Log-density of rows of each molecule, in one pass."""
        return self(contexts, values)

    def forward(self, contexts: Contexts, values: Tensor) -> Tensor:
        """The same, for many weights at once by ``torch.func``."""
        laws, pairs = self._graph(contexts)
        features = _features(laws, values)
        local = self._placed(laws, torch.einsum("mijdf,mbjf->mbid", pairs, features))
        z = (values - laws.mean) / laws.log_scale.exp()
        parts = [self._straight(laws, local, z, k) for k in range(3)]
        straight = laws.known & ~(laws.circular[..., None] & (torch.arange(3, device=z.device) == 2))
        total = torch.where(straight, torch.stack(parts, -1), 0.0).sum((2, 3))
        return total.index_add(0, *self._circles(laws, local, z, values[..., 2]))

    def sample(
        self, contexts: Contexts, size: int, source: torch.Generator
    ) -> Float[Tensor, "molecules size groups 3"]:
        """Rows of each molecule, one group after the other."""
        laws, pairs = self._graph(contexts)
        values = laws.mean.new_zeros((len(pairs), size, pairs.shape[1], 3))
        features = values.new_zeros((*values.shape[:3], _FEATURES))
        for i in range(values.shape[2]):
            law = laws.at(i)
            sums = torch.einsum("mjdf,mbjf->mbd", pairs[:, i, :i], features[:, :, :i])
            drawn = self._drawn(law, self._placed(law, sums[:, :, None]), size, source)
            values[:, :, i] = drawn[:, :, 0]
            features[:, :, i] = _features(law, drawn)[:, :, 0]
        return values

    def _graph(self, c: Contexts) -> tuple[_Laws, Tensor]:
        """Laws of all groups, and the matrices by which one moves with those before."""
        present = (c.elements > 0)[..., None]
        h = (self.embedding(c.elements) + self.degree(c.degrees)) * present
        bonded = c.bonded.to(h.dtype)
        for layer in self.messages:
            h = (h + torch.tanh(layer(torch.cat([h, bonded @ h], 2)))) * present
        h = torch.cat([h, torch.zeros_like(h[:, :1])], 1)
        ends = h[torch.arange(len(h), device=h.device)[:, None, None], c.ends]
        code = self.encoder(torch.cat([ends.flatten(2), c.flags.to(h.dtype)], 2))
        rest = self.first(code)[:, :, None] + self.second(code)[:, None] + self.relation(c.relations.to(h.dtype))
        pairs = torch.tanh(self.pair(torch.tanh(rest))).unflatten(3, (3 + _CONTEXT, _FEATURES))
        groups = torch.arange(pairs.shape[1], device=h.device)
        order = (groups[:, None] > groups) & c.known[:, None, :, 0]
        return self._laws(c, code, ends), pairs * order[..., None, None]

    def _laws(self, c: Contexts, code: Tensor, ends: Tensor) -> _Laws:
        split = [1, 3, *3 * [len(self.grid)]]
        twist, within, places, widths, logits = self.turn(code).split(split, 2)
        mean, log_scale = self._marginals(c, ends, twist)
        laws = (
            code,
            mean,
            log_scale,
            within,
            c.centre[..., 2:].to(code.dtype) + self.grid + places,
            _WIDEST * torch.sigmoid(widths),
            logits,
            c.known,
            c.circular,
            c.turning,
            c.centre.to(code.dtype),
        )
        return _Laws(*(q[:, None] for q in laws))

    def _marginals(self, c: Contexts, ends: Tensor, twist: Tensor) -> tuple[Tensor, Tensor]:
        """Means and logarithms of deviations: of an atom, or of the sum and the harmonics of three equal ones."""
        atom, parent, other, _ = ends.unbind(2)
        bond = self.bond(torch.cat([atom + parent, atom * parent], 2))
        bend = self.bend(torch.cat([parent, atom + other, atom * other], 2))
        kind = {"dtype": bond.dtype, "device": bond.device}
        usual, roles = torch.tensor(_SPREADS, **kind), c.flags[..., :4].to(bond.dtype)
        raw = torch.stack([bond[..., 0], bend[..., 0], torch.zeros_like(bond[..., 0])], 2)
        log_scale = torch.stack([bond[..., 1], bend[..., 1], twist[..., 0]], 2)
        log_scale = usual.log() + _BOUND * torch.tanh(log_scale / _BOUND)
        mean = c.centre.to(bond.dtype) + _REACH * usual * raw
        angle = math.pi * torch.sigmoid(mean[..., 1])
        alone = roles[..., 0] > 0
        narrower = torch.where(alone, 0.0, (angle * (math.pi - angle) / math.pi).log())
        log_scale = log_scale + torch.stack([torch.zeros_like(narrower), narrower, torch.zeros_like(narrower)], 2)
        mean = torch.stack([mean[..., 0], torch.where(alone, mean[..., 1], angle), torch.zeros_like(angle)], 2)
        return mean * (roles @ torch.tensor([1.0, math.sqrt(3), 0.0, 0.0], **kind))[..., None], log_scale

    def _placed(self, laws: _Laws, sums: Tensor) -> _Local:
        code = laws.code.expand(*sums.shape[:3], -1)
        out = self.local(torch.cat([code, torch.tanh(sums[..., 3:])], 3))
        components = len(self.grid)
        shift, spread, logits = out.split([3, 3, components], 3)
        return _Local(sums[..., :3] + 2 * torch.tanh(shift), torch.tanh(spread) / 2, laws.logits + logits)

    @staticmethod
    def _mean(laws: _Laws, local: _Local, z: Tensor, k: int) -> Tensor:
        """Standardised mean of a coordinate, given those of the same atom before it."""
        first: dict[int, Any] = {0: 0.0, 1: laws.within[..., 0] * z[..., 0]}
        both = laws.within[..., 1] * z[..., 0] + laws.within[..., 2] * z[..., 1]
        return local.shift[..., k] + (first[k] if k < 2 else both)

    def _straight(self, laws: _Laws, local: _Local, z: Tensor, k: int) -> Tensor:
        spread = local.spread[..., k]
        rest = (z[..., k] - self._mean(laws, local, z, k)) * torch.exp(-spread)
        return -rest.square() / 2 - spread - laws.log_scale[..., k] - math.log(2 * math.pi) / 2

    def _components(self, laws: _Laws, local: _Local, z: Tensor) -> tuple[Tensor, Tensor]:
        """Centres and deviations on the circle."""
        moved = 0.12 * self._mean(laws, local, z, 2)
        return laws.places + moved[..., None], laws.widths * local.spread[..., 2:].exp()

    def _circles(self, laws: _Laws, local: _Local, z: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
        """Molecule of each angle on a circle, and the log-density of the rows of it: most groups have none."""
        molecule, group = (laws.circular & laws.known[..., 2])[:, 0].nonzero().unbind(1)
        places, widths, logits, angle = (
            q[molecule, :, group] for q in (*self._components(laws, local, z), local.logits, angle)
        )
        away = torch.remainder(angle[..., None] - places + math.pi, 2 * math.pi) - math.pi
        away = (away[..., None] + self.images) / widths[..., None]
        normal = torch.logsumexp(-away.square() / 2, -1) - widths.log() - math.log(2 * math.pi) / 2
        return molecule, torch.logsumexp(normal + logits.log_softmax(-1), -1)

    def _drawn(self, laws: _Laws, local: _Local, size: int, source: torch.Generator) -> Tensor:
        shape = (len(laws.mean), size, 1, 3)
        noise = torch.randn(shape, generator=source, device=self.grid.device, dtype=self.grid.dtype)
        z = torch.zeros_like(noise)
        for k in range(3):
            z[..., k] = self._mean(laws, local, z, k) + noise[..., k] * local.spread[..., k].exp()
        values = torch.where(laws.known, laws.mean + z * laws.log_scale.exp(), 0.0)
        places, widths = self._components(laws, local, z)
        shares = local.logits.softmax(-1).cumsum(-1)
        chance = torch.rand((*shape[:3], 1), generator=source, device=self.grid.device, dtype=self.grid.dtype)
        which = (chance > shares).sum(-1, keepdim=True).clamp(max=len(self.grid) - 1)
        pick = lambda q: q.expand_as(shares).gather(-1, which)[..., 0]  # noqa: E731
        turned = torch.remainder(pick(places) + pick(widths) * noise[..., 2] + math.pi, 2 * math.pi) - math.pi
        values[..., 2] = torch.where(laws.circular, turned, values[..., 2])
        return values


def _features(laws: _Laws, values: Tensor) -> Float[Tensor, "molecules rows groups features"]:
    """Standardised coordinates; of torsions against a direction of space cosine and sine instead."""
    z = torch.where(laws.known, (values - laws.mean) / laws.log_scale.exp(), 0.0)
    angle = values[..., 2]
    bent = torch.where(laws.circular, torch.sin(angle - laws.centre[..., 2]) / 0.12, z[..., 2])
    bent = torch.where(laws.turning, 0.0, bent)
    turned = [torch.where(laws.turning, q, 0.0) for q in (angle.cos(), angle.sin())]
    return torch.stack([z[..., 0], z[..., 1], bent * laws.known[..., 2], *turned], -1).clamp(-30, 30)


def _head(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 24), nn.SiLU(), _last(nn.Linear(24, outputs)))


def _last(layer: nn.Linear, factor: float = 0.0) -> nn.Linear:
    """A layer whose first output is (nearly) zero."""
    with torch.no_grad():
        layer.weight.mul_(factor)
        layer.bias.zero_()
    return layer
