"""Perceptrons whose weights are one vector, evaluated with their gradients by torch or by JAX.

One implementation serves both libraries: it uses what both have, from the one that the weights belong to. The gradient
by the inputs is written out, so that differentiating a density of derivatives needs one backward pass.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.errors import DataError, expected

__all__ = ["Perceptron", "library"]


def library(vector: Any) -> Any:
    """torch, or jax.numpy of a JAX array."""
    return torch if isinstance(vector, Tensor) else vector.__array_namespace__()


@dataclass(frozen=True)
class Perceptron:
    r"""One perceptron for each kind of input, all their weights in one vector with a standard normal prior.

    .. math:: f(x) = s \left(\frac{u^\top h_K}{\sqrt{n_K}} + c\right), \quad
              h_k = \varphi\!\left(\frac{W_k^\top h_{k-1}}{\sqrt{n_{k-1}}} + b_k\right), \quad h_0 = x, \quad
              \varphi(z) = \frac{z}{1 + e^{-z}}

    The roots of the numbers of inputs stand in the network and not in the prior, so every weight is of order one.

    Attributes
    ----------
    features
        Number of entries of an input.
    widths
        Number of units of each hidden layer.
    kinds
        Number of perceptrons.
    scale
        s, in the unit of the values.
    """

    features: int
    widths: tuple[int, ...] = (32,)
    kinds: int = 1
    scale: float = 1.0

    def __post_init__(self) -> None:
        if min(self.features, self.kinds, *self.widths, len(self.widths)) < 1 or not self.scale > 0:
            raise DataError(expected("features, widths, kinds, scale", "positive, at least one hidden layer", self))

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Arrays of one kind in their order in the vector: W and b of each layer, then u and c."""
        sizes = (self.features, *self.widths)
        layers = [shape for n, m in itertools.pairwise(sizes) for shape in ((n, m), (m,))]
        return (*layers, (sizes[-1],), (1,))

    @property
    def parameters(self) -> int:
        """Number of weights of all kinds."""
        return self.kinds * sum(math.prod(shape) for shape in self.shapes)

    def values(
        self, vector: Float[Tensor, " parameters"], inputs: Float[Tensor, "rows features"], kinds: Int[Tensor, " rows"]
    ) -> tuple[Float[Tensor, " rows"], Float[Tensor, "rows features"]]:
        """Value of each input and its gradient, in torch; differentiable by the vector."""
        order = torch.argsort(kinds, stable=True)
        counts = tuple(torch.bincount(kinds, minlength=self.kinds).tolist())
        back = torch.argsort(order)
        found, slopes = self.sorted_values(vector, inputs[order], counts)
        return found[back], slopes[back]

    def sorted_values(self, vector: Any, inputs: Any, counts: tuple[int, ...]) -> tuple[Any, Any]:
        """Values and gradients of inputs that are sorted by kind, ``counts`` of each kind, in torch or JAX."""
        own, starts, xp = self.parameters // self.kinds, [sum(counts[:k]) for k in range(self.kinds)], library(vector)
        parts = [
            self._kind(vector[k * own : (k + 1) * own], inputs[start : start + counts[k]])
            for k, start in enumerate(starts)
        ]
        return xp.concatenate([part[0] for part in parts]), xp.concatenate([part[1] for part in parts])

    def _kind(self, vector: Any, inputs: Any) -> tuple[Any, Any]:
        arrays, start = [], 0
        for shape in self.shapes:
            arrays.append(vector[start : start + math.prod(shape)].reshape(shape))
            start += math.prod(shape)
        *layers, last, constant = arrays
        hidden, rises, weights = inputs, [], []
        for matrix, bias in zip(layers[::2], layers[1::2], strict=True):
            weights.append(matrix / math.sqrt(len(matrix)))
            hidden, rise = _activated(hidden @ weights[-1] + bias)
            rises.append(rise)
        last = last * (self.scale / math.sqrt(len(last)))
        back = last
        for matrix, rise in zip(weights[::-1], rises[::-1], strict=True):
            back = (back * rise) @ matrix.T
        return hidden @ last + self.scale * constant, back


def _activated(z: Any) -> tuple[Any, Any]:
    """The activation and its derivative, by the hyperbolic tangent, which never overflows."""
    share = 0.5 + 0.5 * library(z).tanh(0.5 * z)
    return z * share, share * (1 + z * (1 - share))
