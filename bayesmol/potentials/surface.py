"""The mean of a potential alone: energies, forces and virials without variances, as fast as the model can give them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.data.structures import Structures
from bayesmol.errors import DataError, expected

__all__ = ["Surface", "surface", "surface_function"]


@dataclass(frozen=True, eq=False)
class Surface:
    """Mean energies (eV), forces (eV/Å) and, where asked for, virials (derivative of the energy along a strain, eV)."""

    energies: Float[Tensor, " structures"]
    forces: Float[Tensor, "atoms 3"]
    virials: Float[Tensor, "structures 3 3"] | None = None

    @property
    def needed_virials(self) -> Float[Tensor, "structures 3 3"]:
        """The virials where one cannot do without.

        Raises
        ------
        DataError
            If they are not there.
        """
        if self.virials is None:
            raise DataError(expected("surface", "virials", "none", "virial=True"))
        return self.virials


def surface(model: Any, structures: Any, *, virial: bool = False) -> Surface:
    """Mean energies and forces of structures: those of ``model.predict``, without the cost of the variances.

    Parameters
    ----------
    model
        A fitted potential or a certified model; one with a method ``surface`` is asked for it, of any other the mean
        of ``predict`` is taken.
    virial
        Also the virials.

    Raises
    ------
    DataError
        If the model has neither, or virials are asked for that it does not give.
    """
    return surface_function(model)(Structures.coerce(structures), virial=virial)


def surface_function(model: Any) -> Callable[..., Surface]:
    """What :func:`surface` calls, ``(structures, virial=…) -> Surface``: everything that can be prepared once is."""
    if callable(own := getattr(model, "surface", None)):
        return own
    if hasattr(model, "domain") and hasattr(model, "model"):  # certified: its means are those of its potential
        return surface_function(model.model)
    if not callable(getattr(model, "predict", None)):
        raise DataError(expected("model", "a fitted potential", type(model).__name__, "fit it, or bayesmol.load it"))
    return lambda structures, *, virial=False: _predicted(model, structures, virial)


def _predicted(model: Any, structures: Structures, virial: bool) -> Surface:
    with torch.no_grad():
        prediction = model.predict(structures)
    if virial and prediction.stress is None:
        raise DataError(expected("virial", "False for a model and structures without stress", virial))
    volume = structures.cell.det().abs()[:, None, None]
    virials = prediction.stress.mean * volume if virial else None
    return Surface(prediction.energy.mean, prediction.forces.mean, virials)
