"""What networks share: perceptrons drawn from a generator, invariants that differentiate quickly twice, small parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import silu

from bayesmol.representation.ace import Environments
from bayesmol.representation.couplings import Couplings, Pair, block, coupling

SILU_GAIN = 2.81  # 1 / E[silu(x)²] of a standard normal x, so that hidden units keep a mean square of about 1


def weights(shape: tuple[int, ...], fan: int, source: torch.Generator, *, gain: float = 1.0) -> torch.nn.Parameter:
    """Normal weights of variance ``gain / fan``."""
    return torch.nn.Parameter(torch.randn(shape, generator=source) * (gain / fan) ** 0.5)


class Perceptron(torch.nn.Module):
    r"""Several perceptrons of one shape side by side, :math:`x \mapsto W_n\,\sigma(\dots\sigma(W_1 x + b_1)) + b_n`.

    Without biases the result is 0 where all inputs are 0, and as smooth there as the inputs.

    Parameters
    ----------
    copies
        Number of perceptrons.
    sizes
        Number of inputs, of the units of each hidden layer, and of outputs.
    biases
        Whether the layers have biases; they start at 0.
    """

    def __init__(self, copies: int, sizes: tuple[int, ...], source: torch.Generator, *, biases: bool = True) -> None:
        super().__init__()
        steps = list(pairwise(sizes))
        gains = [1.0] + [SILU_GAIN] * (len(steps) - 1)
        self.layers = torch.nn.ParameterList(
            weights((copies, *step), step[0], source, gain=gain) for step, gain in zip(steps, gains, strict=True)
        )
        blank = [torch.nn.Parameter(torch.zeros(copies, 1, size)) for size in sizes[1:]]
        self.biases = torch.nn.ParameterList(blank if biases else [])

    def forward(self, inputs: Float[Tensor, "rows inputs"]) -> Float[Tensor, "copies rows outputs"]:
        """Outputs of every perceptron for the same inputs."""
        found = inputs.expand(len(self.layers[0]), *inputs.shape)
        for place, layer in enumerate(self.layers):
            found = silu(found) if place else found
            found = torch.baddbmm(self.biases[place], found, layer) if len(self.biases) else torch.bmm(found, layer)
        return found


def tree_products(density: Float[Tensor, "lm n"], known: Couplings) -> Float[Tensor, "invariants n"]:
    r"""Invariant products of spherical tensors as trees of coupled pairs.

    .. math:: B = \sum_M (A_{l_1} \otimes A_{l_2})_{LM} \, (A_{l_3} \otimes A_{l_4})_{LM}

    The same numbers as :func:`bayesmol.representation.polynomials.products`, without analytic gradients: all coupled
    pairs are one matrix product, which automatic differentiation, done twice in training, passes much faster.

    References
    ----------
    Drautz, Phys. Rev. B 99, 014104 (2019); Dusson et al., J. Comput. Phys. 454, 110946 (2022).
    """
    plan = _plan(known, density.dtype, density.device)
    pairs = density.index_select(0, plan["first"]) * density.index_select(0, plan["second"])
    tensors = torch.cat([density, plan["pairing"] @ pairs])
    terms = tensors.index_select(0, plan["left"]) * tensors.index_select(0, plan["right"])
    return torch.cat([tensors.index_select(0, plan["linear"]), plan["summing"] @ terms])


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # what is kept must serve training too
def _plan(known: Couplings, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """Which components to multiply, the coefficients of coupled pairs, and which of their products are summed."""
    size = (known.degree + 1) ** 2
    starts, end = {}, size
    for pair in sorted({pair for item in known.invariants for pair in item.pairs}):
        starts[pair], end = end, end + 2 * pair[2] + 1
    linear = [starts[item.pairs[0]] if item.pairs else 0 for item in known.invariants if item.order <= 2]
    left, right, owner = [], [], []
    for number, item in enumerate(known.invariants[len(linear) :]):
        pair, *others = item.pairs
        other = starts[others[0]] if others else block(pair[2]).start
        for component in range(2 * pair[2] + 1):
            left.append(starts[pair] + component)
            right.append(other + component)
            owner.append(number)
    summing = torch.zeros(len(known.invariants) - len(linear), len(left), dtype=dtype)
    summing[owner, range(len(left))] = 1
    first, second = torch.triu_indices(size, size)
    plan = {"linear": linear, "left": left, "right": right}
    arrays = {name: torch.tensor(rows, dtype=torch.long) for name, rows in plan.items()}
    arrays |= {"first": first, "second": second, "summing": summing, "pairing": _pairing(tuple(starts), size).to(dtype)}
    return {name: tensor.to(device) for name, tensor in arrays.items()}


def _pairing(pairs: tuple[Pair, ...], size: int) -> Float[Tensor, "coupled products"]:
    """Coefficients of all coupled pairs over the products of two components, each product once."""
    first, second = torch.triu_indices(size, size)
    rows = []
    for pair in pairs:
        dense = torch.zeros(size, size, 2 * pair[2] + 1, dtype=torch.float64)
        dense[block(pair[0]), block(pair[1])] = coupling(pair)
        folded = (dense + dense.transpose(0, 1))[first, second]
        rows.append(torch.where((first == second)[:, None], folded / 2, folded).T)
    return torch.cat(rows)


def parts(environment: Environments, *, atoms: int = 2048) -> Iterator[Environments]:
    """Consecutive structures with together at most so many atoms, or one structure with more."""
    counts = torch.bincount(environment.structure, minlength=environment.structures)
    ends, start = counts.cumsum(0), 0
    while start < environment.structures:
        before = int(ends[start] - counts[start])
        stop = max(start + 1, int((ends - before <= atoms).sum()))
        yield _between(environment, start, stop, before, int(ends[stop - 1]))
        start = stop


def _between(environment: Environments, start: int, stop: int, first: int, last: int) -> Environments:
    """Structures from ``start`` to ``stop``, which have the atoms from ``first`` to ``last``."""
    inside = (environment.first >= first) & (environment.first < last)
    names = ("vectors", "radial", "radial_slope", "harmonics", "harmonics_slope")
    return replace(
        environment,
        species=environment.species[first:last],
        structure=environment.structure[first:last] - start,
        structures=stop - start,
        first=environment.first[inside] - first,
        second=environment.second[inside] - first,
        buckets=(),
        **{name: getattr(environment, name)[inside] for name in names},
    )
