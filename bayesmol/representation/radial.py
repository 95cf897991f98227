"""Radial functions of the atomic cluster expansion and their derivatives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.data.structures import Structures
from bayesmol.errors import DataError, expected


def covalent_radii(species: Tensor) -> Tensor:
    """Covalent radii in Å (Cordero et al., Dalton Trans. 2832 (2008), as tabulated by ASE)."""
    from ase.data import covalent_radii as table

    return torch.as_tensor(table, dtype=torch.float64)[species.cpu()].to(species.device)


@dataclass(frozen=True)
class RadialBasis:
    r"""Chebyshev polynomials of an exponentially stretched distance, smooth at both ends.

    .. math:: R_n(r) = f(r)\, g(r)\, T_n(x(r)), \quad x \propto e^{-\lambda r / r_0},\; f = (1 - r^2/r_c^2)^2

    The inner envelope :math:`g` rises from 0 to 1 between ``inner[0]`` and ``inner[1]`` times the sum of the covalent
    radii, so that below bonding distances the prior energy (:mod:`bayesmol.potentials.repulsion`) alone decides.

    Raises
    ------
    DataError
        If the cutoff or the scale is not positive or there are fewer than two functions.

    References
    ----------
    Drautz, Phys. Rev. B 99, 014104 (2019), equation 24 (exponential stretch and Chebyshev polynomials).
    """

    cutoff: float = 4.0
    size: int = 8
    scale: float = 0.9
    inner: tuple[float, float] = (0.4, 0.75)

    def __post_init__(self) -> None:
        if self.cutoff <= 0 or self.scale <= 0 or self.size < 2:
            got = f"cutoff={self.cutoff}, scale={self.scale}, size={self.size}"
            raise DataError(expected("radial basis", "cutoff > 0 Å, scale > 0 Å, size >= 2", got))
        if len(self.inner) != 2 or not 0 < self.inner[0] < self.inner[1]:
            raise DataError(expected("inner", "two rising positive factors of the covalent radii", self.inner))

    def __call__(
        self, distances: Float[Tensor, " edges"], contact: Float[Tensor, " edges"]
    ) -> tuple[Float[Tensor, "edges radial"], Float[Tensor, "edges radial"]]:
        """Values and derivatives (1/Å) at ``distances``; ``contact`` is the sum of the covalent radii, both in Å."""
        argument, slope = self._stretch(distances)
        polynomials, derivatives = _chebyshev(argument, self.size)
        envelope, envelope_slope = self._envelope(distances, contact)
        values = polynomials * envelope[:, None]
        slopes = derivatives * (slope * envelope)[:, None] + polynomials * envelope_slope[:, None]
        return values, slopes

    def _stretch(self, distances: Tensor) -> tuple[Tensor, Tensor]:
        """Exponential stretch of [0.5 Å, cutoff] to [1, -1] and its derivative."""
        rate = 0.7 / self.scale
        ends = torch.exp(-rate * torch.tensor([0.5, self.cutoff], dtype=distances.dtype))
        exponential = torch.exp(-rate * distances)
        slope = 2.0 / float(ends[0] - ends[1])
        argument = slope * (exponential - float(ends[1])) - 1.0
        inside = argument < 1.0
        return argument.clamp(max=1.0), torch.where(inside, -rate * slope * exponential, torch.zeros_like(argument))

    def _envelope(self, distances: Tensor, contact: Tensor) -> tuple[Tensor, Tensor]:
        outer = (1 - (distances / self.cutoff) ** 2).clamp(min=0)
        outer_slope = -4 * outer * distances / self.cutoff**2
        start, stop = self.inner[0] * contact, self.inner[1] * contact
        rise, rise_slope = smoothstep((distances - start) / (stop - start))
        return outer**2 * rise, outer_slope * rise + outer**2 * rise_slope / (stop - start)


def smoothstep(argument: Tensor) -> tuple[Tensor, Tensor]:
    """Quintic step from 0 at 0 to 1 at 1 with two continuous derivatives, and its derivative."""
    t = argument.clamp(0, 1)
    return t**3 * (10 - 15 * t + 6 * t**2), 30 * t**2 * (1 - t) ** 2


def _chebyshev(x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Chebyshev polynomials of the first kind T_0..T_{size-1} and derivatives n U_{n-1}."""
    first, second = [torch.ones_like(x), x], [torch.ones_like(x), 2 * x]
    for _ in range(size - 2):
        first.append(2 * x * first[-1] - first[-2])
        second.append(2 * x * second[-1] - second[-2])
    derivatives = [torch.zeros_like(x)] + [n * second[n - 1] for n in range(1, size)]
    return torch.stack(first[:size], -1), torch.stack(derivatives, -1)


def species_index(species: Int[Tensor, " atoms"], known: tuple[int, ...]) -> Int[Tensor, " atoms"]:
    """Position of each atom's element among the ``known`` atomic numbers.

    Raises
    ------
    DataError
        If an element was not in the training set.
    """
    table = torch.tensor(known, device=species.device)
    match = species[:, None] == table
    if not bool(match.any(-1).all()):
        unknown = sorted(set(species[~match.any(-1)].tolist()))
        remedy = "train with structures that contain them"
        raise DataError(expected("species", f"elements {known} (atomic numbers)", f"{unknown}", remedy))
    return match.to(torch.int8).argmax(-1)


def element_counts(structures: Structures, known: tuple[int, ...]) -> Float[Tensor, "structures species"]:
    """Number of atoms of each of the ``known`` atomic numbers.

    Raises
    ------
    DataError
        If there is another element.
    """
    kinds = species_index(structures.species, known)
    counts = structures.positions.new_zeros(len(structures), len(known))
    return counts.index_put((structures.structure_index, kinds), counts.new_ones(len(kinds)), accumulate=True)
