"""Products of spherical tensors: the steerable convolution and the body-ordered product of equivariant networks.

Features are arrays (atoms, channels, lm) of natural parity: degree l changes by :math:`(-1)^l` under inversion, as
spherical harmonics do. Only couplings with even :math:`l_1 + l_2 + l_3` keep that.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from e3nn.o3 import wigner_3j
from jaxtyping import Float
from torch import Tensor

from bayesmol.representation.couplings import block

Path = tuple[int, int, int]


def paths(left: int, right: int, out: int) -> tuple[Path, ...]:
    """Couplings of degrees up to ``left`` with degrees up to ``right`` to degrees up to ``out``, parity kept."""
    return tuple(
        (a, b, c)
        for a in range(left + 1)
        for b in range(right + 1)
        for c in range(abs(a - b), min(a + b, out) + 1)
        if (a + b + c) % 2 == 0
    )


@lru_cache(maxsize=64)
def clebsch_gordan(left: int, right: int, out: int) -> Float[Tensor, "paths left right out"]:
    r"""Coupling coefficients of all :func:`paths`, embedded among all components.

    Scaled so that the product of independent tensors with components of unit variance has components of unit variance
    when all paths into one degree are added: :math:`\sqrt{2 l_3 + 1}` times the Wigner 3j symbol over the root of the
    number of these paths.
    """
    listed = paths(left, right, out)
    found = torch.zeros(len(listed), (left + 1) ** 2, (right + 1) ** 2, (out + 1) ** 2, dtype=torch.float64)
    for number, (a, b, c) in enumerate(listed):
        share = math.sqrt((2 * c + 1) / sum(path[2] == c for path in listed))
        found[number, block(a), block(b), block(c)] = share * wigner_3j(a, b, c, dtype=torch.float64)
    return found


class Linear(torch.nn.Module):
    """Mixing of channels, one matrix for each degree, (degrees, in, out); scalars may have a bias in later layers."""

    def __init__(self, degree: int, inputs: int, outputs: int, source: torch.Generator) -> None:
        super().__init__()
        shape = (degree + 1, inputs, outputs)
        self.weight = torch.nn.Parameter(torch.randn(shape, generator=source, dtype=torch.float64) / inputs**0.5)

    def forward(self, features: Float[Tensor, "atoms inputs lm"]) -> Float[Tensor, "atoms outputs lm"]:
        """Mixed channels of the degrees that the weights have; higher ones are dropped."""
        repeats = 2 * torch.arange(len(self.weight), device=features.device) + 1
        weight = self.weight.repeat_interleave(repeats, 0)
        mixed = features[:, :, : len(weight)].permute(2, 0, 1) @ weight
        return mixed.permute(1, 2, 0)


class Convolution(torch.nn.Module):
    r"""Messages of neighbours, :math:`A_{i k l_3} = \sum_j \sum_p R_{kp}(r_{ij})\, [Y_{l_1}(\hat r_{ij}) \otimes
    h_{j k l_2}]_{l_3}`.

    Columns are pairs of a path and a component of the sender. The radial weights R come from outside, one for each
    channel and column, equal in the columns of one path: :attr:`path` says which.
    """

    def __init__(self, edge: int, right: int, out: int) -> None:
        super().__init__()
        self.degrees = edge, right, out
        self.paths = paths(edge, right, out)
        self.path = tuple(p for p, path in enumerate(self.paths) for _ in range(2 * path[1] + 1))

    def forward(
        self,
        harmonics: Float[Tensor, "edges lm"],
        radial: Float[Tensor, "edges channels columns"],
        features: Float[Tensor, "atoms channels inner"],
        first: Tensor,
        second: Tensor,
    ) -> Float[Tensor, "atoms channels outer"]:
        """Sums over the neighbours of each atom."""
        table, spread = _columns(self.degrees, features.dtype, features.device)
        turned = (harmonics @ table).unflatten(1, (len(self.path), -1))
        messages = ((features @ spread).index_select(0, second) * radial) @ turned
        return messages.new_zeros(len(features), *messages.shape[1:]).index_add(0, first, messages)


class Product(torch.nn.Module):
    """Coupled product of two features channel by channel, each path with a weight of its channel."""

    def __init__(self, left: int, right: int, out: int, channels: int, source: torch.Generator) -> None:
        super().__init__()
        self.degrees = left, right, out
        shape = (channels, len(paths(left, right, out)))
        self.weight = torch.nn.Parameter(torch.randn(shape, generator=source, dtype=torch.float64))

    def forward(
        self, left: Float[Tensor, "atoms channels left"], right: Float[Tensor, "atoms channels right"]
    ) -> Float[Tensor, "atoms channels out"]:
        """Products of degrees up to ``out``, as matrices made of the right features that act on the left ones."""
        rows, columns, out = ((degree + 1) ** 2 for degree in self.degrees)
        coupled = _matrices(self.degrees, left.dtype, left.device)
        table = (self.weight @ coupled).unflatten(1, (columns, rows * out))
        matrices = (right.transpose(0, 1) @ table).unflatten(2, (rows, out))
        return (left.transpose(0, 1).unsqueeze(2) @ matrices).squeeze(2).transpose(0, 1)


class ScalarProduct(torch.nn.Module):
    """Invariant products of two features of one degree, channel by channel: a :class:`Product` of degree 0."""

    def __init__(self, degree: int, channels: int, source: torch.Generator) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(channels, degree + 1, generator=source, dtype=torch.float64))

    def forward(self, left: Tensor, right: Tensor) -> Float[Tensor, "atoms channels 1"]:
        """Sum over the degrees of weighted scalar products."""
        degree = self.weight.shape[1] - 1
        sizes = 2 * torch.arange(degree + 1, device=left.device) + 1
        scaled = self.weight / (sizes * (degree + 1)).to(left).sqrt()
        return (left * right * scaled.repeat_interleave(sizes, 1)).sum(2, keepdim=True)


# Coefficients are no buffers: a network that was float32 for a while would keep rounded ones for ever.
@lru_cache(maxsize=64)
def _columns(degrees: Path, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Couplings of each column of a convolution, (lm, columns × outer), and its component, (inner, columns)."""
    table = clebsch_gordan(*degrees)
    listed = [(p, m) for p, path in enumerate(paths(*degrees)) for m in range(path[1] ** 2, (path[1] + 1) ** 2)]
    coupled = torch.stack([table[p, :, m] for p, m in listed], 1).flatten(1)
    spread = torch.eye(table.shape[2], dtype=torch.float64)[:, [m for _, m in listed]]
    return coupled.to(device, dtype), spread.to(device, dtype)


@lru_cache(maxsize=64)
def _matrices(degrees: Path, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "paths coefficients"]:
    """Couplings of each path of a product, its axes right, left and out."""
    return clebsch_gordan(*degrees).transpose(1, 2).flatten(1).to(device, dtype)
