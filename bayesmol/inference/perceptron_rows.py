"""Perceptrons observed in sums of their values and in rows of their derivatives, as energies and forces are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.perceptron import Perceptron

__all__ = ["PerceptronRows", "observed"]


@dataclass(frozen=True, eq=False)
class PerceptronRows:
    r"""Inputs of groups of equal size, and what is observed of each group.

    The model of a group s with members i is

    .. math:: y_s = \sum_{i \in s} f(x_i) + \sigma_y \varepsilon, \qquad
              d_s = \sum_{i \in s} J_i^\top \nabla f(x_i) + \sigma_d \varepsilon.

    Attributes
    ----------
    inputs
        x; of order one.
    kinds
        Which perceptron each member belongs to.
    jacobians
        J: derivatives of the inputs of each member along the observed directions; with minus the derivatives by the
        positions of the atoms of a structure, d are forces.
    sums, derivatives
        y and d.
    """

    inputs: Float[Tensor, "groups members features"]
    kinds: Int[Tensor, "groups members"]
    jacobians: Float[Tensor, "groups members features directions"]
    sums: Float[Tensor, " groups"]
    derivatives: Float[Tensor, "groups directions"]

    def __post_init__(self) -> None:
        groups, members, features = self.inputs.shape
        wanted = {
            "kinds": (groups, members),
            "jacobians": (groups, members, features, self.derivatives.shape[-1]),
            "sums": (groups,),
            "derivatives": (groups, self.derivatives.shape[-1]),
        }
        for name, shape in wanted.items():
            if tuple(getattr(self, name).shape) != shape:
                raise ShapeError(expected(name, f"shape {shape}", tuple(getattr(self, name).shape)))

    def counts(self, kinds: int) -> tuple[int, ...]:
        """Number of members of each kind."""
        found = torch.bincount(self.kinds.reshape(-1), minlength=kinds).tolist()
        if len(found) > kinds:
            raise DataError(expected("kinds", f"numbers below {kinds}", int(self.kinds.max())))
        return tuple(found)

    def arrays(self) -> dict[str, Tensor]:
        """The same with the inputs sorted by kind, and ``back`` that undoes the order."""
        order = torch.argsort(self.kinds.reshape(-1), stable=True)
        return {
            "inputs": self.inputs.flatten(0, 1)[order],
            "back": torch.argsort(order),
            "jacobians": self.jacobians.flatten(1, 2),
            "sums": self.sums,
            "derivatives": self.derivatives,
        }


def observed(perceptron: Perceptron, counts: tuple[int, ...], vector: Any, data: Any) -> tuple[Any, Any]:
    """Sums ``(groups,)`` and derivatives ``(groups, directions)`` of all groups without noise, in torch or JAX.

    Parameters
    ----------
    counts
        Members of each kind, :meth:`PerceptronRows.counts`.
    vector
        Weights of the perceptron.
    data
        :meth:`PerceptronRows.arrays`, in the library of the vector.
    """
    values, slopes = perceptron.sorted_values(vector, data["inputs"], counts)
    groups = len(data["jacobians"])
    sums = values[data["back"]].reshape(groups, -1).sum(-1)
    return sums, (slopes[data["back"]].reshape(groups, 1, -1) @ data["jacobians"])[:, 0]
