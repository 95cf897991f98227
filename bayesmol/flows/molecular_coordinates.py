"""Internal coordinates of a molecule, as transforms for flows."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, expected
from bayesmol.flows.coordinates import Composed, Coordinates, Rows, Volume
from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.rotors import LOG_VOLUME, labelled, unlabelled
from bayesmol.flows.viewed import Viewed
from bayesmol.flows.whitened import whitening
from bayesmol.inference.random import generator
from bayesmol.representation.internal import internal_coordinates, internal_volume, positions, wrapped
from bayesmol.representation.zmatrix import ZMatrix, zmatrix

__all__ = ["Internal", "TorsionOnly", "molecular"]

_LONG = 20.0  # no bond is longer than e²⁰ Å, or shorter than the inverse
_WALKERS, _BOND, _ANGLE, _TORSION = 64, 0.03, 0.07, 0.15  # chains, and the deviations that they start with


class Internal(Coordinates):
    r"""Logarithms of bonds, angles and torsions of a molecule: 3N − 6 numbers.

    .. math:: \log |\partial x / \partial y| = \log 8\pi^2 - \tfrac32 \log N + \sum_b 3 \log r_b
        + \sum_a \log \sin\theta_a + \tfrac12 R \log 3

    for R rotors. Columns are bonds, angles, torsions in the order of the Z-matrix; torsions of siblings are relative.

    Parameters
    ----------
    handed
        Whether centres with four neighbours keep the handedness of the geometry that made the Z-matrix. There is no
        density on the other side, and the integral over configurations is that over this side only.
    rotors
        Whether rotors of three equal atoms are seen without their labels (:func:`bayesmol.flows.rotors.unlabelled`):
        each has one angle on the circle of a third of a turn and eight straight numbers. The density of labelled
        configurations is then the same for all three labellings, a third each; the inverse gives one of them. The two
        senses of such a rotor never mix.
    """

    rotating: Tensor
    columns: Tensor
    pick: Tensor
    signs: Tensor

    def __init__(self, matrix: ZMatrix, *, handed: bool = True, rotors: bool = True) -> None:
        atoms = len(matrix.atoms)
        torsions = torch.arange(3 * atoms - 6) >= 2 * atoms - 3
        rows = matrix.rotors if rotors else matrix.rotors[:0]
        twists = (2 * atoms - 3 + rows)[:, 1:].flatten()
        super().__init__(3 * atoms, torsions.index_fill(0, twists, False))
        self.matrix, self.rotors, self.atoms = matrix, len(rows), atoms
        self.register_buffer("rotating", torch.zeros_like(torsions))
        self.rotating[2 * atoms - 3 :] = matrix.rotating
        # Columns of bonds, angles and torsions of the rotors.
        self.register_buffer("columns", torch.stack([rows + 2, atoms + rows, 2 * atoms - 3 + rows]))
        pick = torch.arange(3 * atoms - 6)
        pick[self.columns.flatten()] = 3 * atoms - 6 + torch.arange(self.columns.numel())
        self.register_buffer("pick", pick)
        self.handed = handed
        self.register_buffer("signs", matrix.handedness.double() * handed)

    def forward(self, inputs: Rows, context: Tensor | None = None) -> tuple[Rows, Volume]:
        lengths, angles, torsions = internal_coordinates(self._checked(inputs, self.dimension, "x"), self.matrix)
        volume = -self._volume(lengths, angles)
        y = torch.cat([lengths.log(), angles, torsions], 1)
        if self.rotors:
            y = self._replaced(y, *unlabelled(*(y[:, q] for q in self.columns)))
        volume = torch.where(self._inside(torsions), volume, -math.inf)
        return y.to(inputs.dtype), volume.to(inputs.dtype)

    def inverse(self, inputs: Rows, context: Tensor | None = None) -> tuple[Rows, Volume]:
        y = self._checked(inputs, len(self.circular), "y")
        if self.rotors:
            y = self._replaced(y, *labelled(*(y[:, q] for q in self.columns)))
        logarithms, angles, torsions = y.split([self.atoms - 1, self.atoms - 2, self.atoms - 3], 1)
        valid = ((angles > 0) & (angles < math.pi)).all(1) & (logarithms.abs() < _LONG).all(1) & self._inside(torsions)
        # Other bonds and angles stand in where there is no density, so that positions and gradients are finite.
        angles = torch.where(valid[:, None], angles, math.pi / 2)
        lengths = torch.where(valid[:, None], logarithms, 0.0).exp()
        x = positions(lengths, angles, torsions, self.matrix)
        volume = torch.where(valid, self._volume(lengths, angles), -math.inf)
        return x.to(inputs.dtype), volume.to(inputs.dtype)

    def _volume(self, lengths: Tensor, angles: Tensor) -> Volume:
        return internal_volume(lengths, angles) + lengths.log().sum(1) + self.rotors * LOG_VOLUME

    def _replaced(self, y: Tensor, *triples: Tensor) -> Tensor:
        return torch.cat([y, *(q.flatten(1) for q in triples)], 1)[:, self.pick]

    def _inside(self, torsions: Tensor) -> Tensor:
        """Whether handed centres are as in the reference, and no gap between atoms of a rotor exceeds half a turn."""
        kept = (wrapped(torsions) * self.signs >= 0).all(1)
        second, third = (torsions[:, self.columns[2, :, k] - 2 * self.atoms + 3] for k in (1, 2))
        ordered = (second > 0) & (second < math.pi) & (third < 0) & (third > -math.pi) & (second - third > math.pi)
        return kept & ordered.all(1)


class TorsionOnly(Coordinates):
    r"""Rotations about the bonds outside of rings; bonds, angles and relative torsions stay as in one geometry.

    The density of the torsions is :math:`\propto e^{-u(x(\tau))}\,d\tau`: a rigid model, with neither the vibrations
    of the rest nor the metric of the constraint. It is not the marginal of the density in Cartesian coordinates.
    """

    chosen: Tensor
    reference: Tensor

    def __init__(self, internal: Internal, x: Float[Tensor, "1 coordinates"]) -> None:
        chosen = (internal.rotating & internal.circular).nonzero().squeeze(1)
        if not len(chosen):
            raise DataError(expected("internal", "a molecule with torsions that rotate", "none"))
        super().__init__(internal.dimension, torch.ones(len(chosen), dtype=torch.bool))
        self.internal = internal
        self.register_buffer("chosen", chosen)
        self.register_buffer("reference", internal(x.double())[0][0])

    def forward(self, inputs: Rows, context: Tensor | None = None) -> tuple[Rows, Volume]:
        return self.internal(inputs)[0][:, self.chosen], inputs.new_zeros(len(inputs))

    def inverse(self, inputs: Rows, context: Tensor | None = None) -> tuple[Rows, Volume]:
        torsions = self._checked(inputs, len(self.chosen), "y")
        rows = self.reference.expand(len(inputs), -1).index_copy(1, self.chosen, torsions)
        return self.internal.inverse(rows)[0].to(inputs.dtype), inputs.new_zeros(len(inputs))


def molecular(
    density: BoltzmannDensity,
    samples: Float[Tensor, "points dimension"] | None = None,
    *,
    seed: int | torch.Generator,
) -> Composed:
    """Internal coordinates of a molecule, centred and whitened.

    Parameters
    ----------
    samples
        Configurations from which the ranges are taken; without them, short Hamiltonian chains from the first of
        ``density.start`` find those. They change the coordinates, and so the speed of learning, never the density.

    Raises
    ------
    DataError
        If the density has no ``species`` or no ``start``, or a sample has another handedness than the start.
    """
    if density.species is None or density.start is None:
        raise DataError(expected("density", "a molecule, with species and start", density.name))
    start = density.start[:1].double()
    internal = Internal(zmatrix(density.species, start[0].unflatten(0, (-1, 3)))).to(start.device)
    if samples is None:
        return _explored(density, internal, internal(start)[0], seed)
    return _whitened(internal, _seen(internal, samples))


def _seen(internal: Internal, samples: Tensor) -> Float[Tensor, "points columns"]:
    rows, volume = internal(samples.double())
    if outside := int(volume.isinf().sum()):
        raise DataError(expected("samples", "the handedness of density.start", f"another in {outside} of {len(rows)}"))
    return rows


def _whitened(internal: Internal, rows: Tensor) -> Composed:
    return Composed([internal, whitening(rows, internal.circular, internal.rotating)])


def _explored(density: BoltzmannDensity, internal: Internal, start: Tensor, seed: int | torch.Generator) -> Composed:
    """Coordinates from two rounds of chains, the second in the whitened coordinates of the first."""
    from bayesmol.inference.metropolis import HamiltonianMonteCarlo

    source = generator(seed, start.device)
    kinds = [_BOND] * (internal.atoms - 1) + [_ANGLE] * (internal.atoms - 2) + [_TORSION] * (internal.atoms - 3)
    scales = torch.tensor(kinds, dtype=start.dtype, device=start.device)
    sampler = HamiltonianMonteCarlo(step=0.2, leapfrogs=8, warmup=30, draws=10, diagonal=True)
    walk = sampler.fit(Viewed(density, internal), start.expand(_WALKERS, -1), scales=scales, seed=source)
    rough = _whitened(internal, walk.values.flatten(0, 1))
    sampler = HamiltonianMonteCarlo(step=0.3, leapfrogs=8, warmup=10, draws=10, thin=2)
    walk = sampler.fit(Viewed(density, rough), rough.parts[1](walk.values[:, -1])[0], seed=source)
    return _whitened(internal, rough.parts[1].inverse(walk.values.flatten(0, 1))[0])
