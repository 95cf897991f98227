"""Short-range repulsion of nuclei: the prior energy that makes every posterior draw rise as atoms overlap."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.data.structures import Structures
from bayesmol.representation.neighbours import neighbours
from bayesmol.representation.radial import covalent_radii, smoothstep
from bayesmol.units import convert

WEIGHTS = (0.18175, 0.50986, 0.28022, 0.02817)
RATES = (3.19980, 0.94229, 0.40290, 0.20162)
FADE = (0.5, 0.8)


@dataclass(frozen=True)
class PriorEnergy:
    """Energies (eV), forces (eV/Å) and virials (derivative of the energy along a strain, eV) of the prior mean."""

    energies: Float[Tensor, " structures"]
    forces: Float[Tensor, "atoms 3"]
    virials: Float[Tensor, "structures 3 3"]


def repulsion(structures: Structures) -> PriorEnergy:
    r"""Screened nuclear repulsion of Ziegler, Biersack and Littmark, faded out below bonding distances.

    .. math:: E = \sum_{i<j} \frac{Z_i Z_j e^2}{4\pi\varepsilon_0 r_{ij}}\,\varphi(r_{ij}/a_{ij})\,[1 - s(r_{ij})],
        \quad a_{ij} = \frac{0.8854\, a_0}{Z_i^{0.23} + Z_j^{0.23}}

    where s rises from 0 to 1 between 0.5 and 0.8 times the sum of the covalent radii, so bonded atoms feel none of it.

    References
    ----------
    Ziegler, Biersack, Littmark, The Stopping and Range of Ions in Solids (1985).
    """
    radii = covalent_radii(structures.species).to(structures.positions)
    edges = neighbours(structures, FADE[1] * 2 * float(radii.max()))
    distance = edges.vectors.norm(dim=-1)
    energy, slope = _pair(distance, structures.species, edges.first, edges.second, radii)
    owner = structures.structure_index[edges.first]
    force = (slope / distance)[:, None] * edges.vectors
    energies = energy.new_zeros(len(structures)).index_add(0, owner, 0.5 * energy)
    forces = torch.zeros_like(structures.positions).index_add(0, edges.first, force)
    strain = 0.5 * force.unsqueeze(-1) * edges.vectors.unsqueeze(-2)
    return PriorEnergy(energies, forces, energy.new_zeros(len(structures), 3, 3).index_add(0, owner, strain))


def _pair(distance: Tensor, species: Tensor, first: Tensor, second: Tensor, radii: Tensor) -> tuple[Tensor, Tensor]:
    """Pair energy and its derivative."""
    charge = species.to(distance)
    bohr = convert(1.0, "bohr", "Å")
    coulomb = convert(1.0, "Ha", "eV") * bohr * charge[first] * charge[second] / distance
    rate = (charge[first] ** 0.23 + charge[second] ** 0.23) / (0.8854 * bohr)
    terms = [w * torch.exp(-k * rate * distance) for w, k in zip(WEIGHTS, RATES, strict=True)]
    screen = sum(terms)
    screen_slope = sum(-k * rate * term for k, term in zip(RATES, terms, strict=True))
    contact = radii[first] + radii[second]
    step, step_slope = smoothstep((distance / contact - FADE[0]) / (FADE[1] - FADE[0]))
    fade, fade_slope = 1 - step, -step_slope / (contact * (FADE[1] - FADE[0]))
    bare_slope = coulomb * (screen_slope - screen / distance)
    return coulomb * screen * fade, bare_slope * fade + coulomb * screen * fade_slope
