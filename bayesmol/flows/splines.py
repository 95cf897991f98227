"""Monotone rational-quadratic splines on intervals and circles, without branches."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

__all__ = ["rational_quadratic"]

SMALLEST_BIN = 1e-3  # of the interval; narrower bins cost the digits of float32
SMALLEST_SLOPE = 1e-3
UNIT_SLOPE = math.log(math.expm1(1 - SMALLEST_SLOPE))  # parameter 0 then means slope 1, so that a new spline is x ↦ x

Planes = Float[Tensor, "coordinates rows"]


def rational_quadratic(
    x: Planes,
    sizes: Float[Tensor, "axes=2 bins coordinates #rows"],
    slopes: Float[Tensor, "bins coordinates #rows"],
    bound: Float[Tensor, " coordinates"],
    circular: Bool[Tensor, " coordinates"],
    *,
    inverse: bool = False,
) -> tuple[Planes, Planes]:
    r"""Value and log-derivative of monotone splines through K bins of :math:`[-b, b]`.

    With :math:`\xi` the place in a bin of width w and height h, :math:`s = h / w`, slopes :math:`d_0, d_1` at its ends,

    .. math:: y = y_0 + \frac{h\,[s \xi^2 + d_0\, \xi (1 - \xi)]}{s + (d_0 + d_1 - 2 s)\, \xi (1 - \xi)}.

    Rows are the last axis and bins the first: every step then runs over contiguous memory, which is many times faster
    on a CPU than a last axis of a few bins.

    Parameters
    ----------
    x
        Arguments, or values if ``inverse``. Straight ones may lie anywhere: outside the interval the map is the
        identity. Circular ones must lie in the interval.
    sizes, slopes
        Logits of widths and heights, and slopes before a softplus, of each row or of all; zeros make the identity.
        Straight splines have slope 1 at both ends, and do not use the first number.
    bound
        Half the length b of the interval.
    circular
        Which splines have the same slope at both ends of the interval.

    References
    ----------
    Durkan, Bekasov, Murray, Papamakarios, NeurIPS 32 (2019), equations 4-8; Rezende et al., ICML (2020), section 2.1.2.
    """
    bins, edge = len(slopes), bound[:, None]
    inside = torch.clamp(x, -edge, edge)
    place = inside * (0.5 / edge) + 0.5
    shares = torch.softmax(sizes, 1)
    index = _bin(shares[int(inverse)].detach(), place.detach())
    last = index == bins - 1
    pick = _Pick.apply if slopes.shape[2] == place.shape[1] else _looked_up
    below, here, ends = pick(shares, slopes, index, torch.where(last, 0, index + 1))
    (x0, y0), (w, h) = _floored(below, index.to(x.dtype), bins), _floored(here, 1, bins)
    fixed = torch.stack([index == 0, last]) & ~circular[:, None]
    d0, d1 = SMALLEST_SLOPE + functional.softplus(ends.masked_fill(fixed, 0.0) + UNIT_SLOPE)
    if inverse:
        xi, slope = _fall(place - y0, h, h / w, d0, d1)
        value = x0 + xi * w
    else:
        rise, slope = _rise((place - x0) / w, h, h / w, d0, d1)
        value = y0 + rise
    outside = x != inside
    return torch.where(outside, x, (2 * value - 1) * edge), slope.masked_fill(outside, 0.0)


def _floored(share: Tensor, count: Tensor | int, bins: int) -> Tensor:
    """Length of ``count`` bins that have this share of what the floors leave."""
    return SMALLEST_BIN * count + (1 - bins * SMALLEST_BIN) * share


def _bin(shares: Float[Tensor, "bins coordinates rows"], place: Planes) -> Int[Tensor, "coordinates rows"]:
    """The bin that holds each place of the unit interval; bins have a floor and these shares of the rest."""
    bins = len(shares)
    if shares.is_cuda:
        knots = ((1 - bins * SMALLEST_BIN) * shares[:-1] + SMALLEST_BIN).cumsum(0)
    else:  # a product is five times faster here than a running sum; shares add up to 1, so the floor is linear in them
        matrix = torch.ones(bins - 1, bins, dtype=shares.dtype).tril() * (1 - bins * SMALLEST_BIN)
        matrix = matrix + SMALLEST_BIN * torch.arange(1, bins, dtype=shares.dtype)[:, None]
        knots = (matrix @ shares.flatten(1)).unflatten(1, shares.shape[1:])
    return (place >= knots).sum(0, dtype=torch.int64)


def _looked_up(shares: Tensor, raw: Tensor, index: Tensor, following: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same as below where all rows share their parameters: small tables instead of planes."""
    table = shares[..., 0].mT
    both = index.expand(2, *index.shape)
    below = functional.pad(table[..., :-1].cumsum(-1), (1, 0)).gather(-1, both)
    ends = [raw[..., 0].mT.gather(-1, place) for place in (index, following)]
    return below, table.gather(-1, both), torch.stack(ends)


class _Pick(torch.autograd.Function):
    """Sum of the planes below an index, the plane at it, and the planes at both ends of its bin; linear, with adjoint.

    Autograd would fill arrays of zeros for each of these; the adjoint writes each number once.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(shares: Tensor, raw: Tensor, index: Tensor, following: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        here = shares.gather(1, index.expand(2, 1, *index.shape)).squeeze(1)
        ends = torch.cat([raw.gather(0, index[None]), raw.gather(0, following[None])])
        return (shares * _before(index, shares)).sum(1), here, ends

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[2:])
        ctx.bins = len(inputs[1])

    @staticmethod
    def backward(ctx: Any, below: Tensor, here: Tensor, ends: Tensor) -> Any:
        return *_Spread.apply(below, here, ends, *ctx.saved_tensors, ctx.bins), None, None


class _Spread(torch.autograd.Function):
    """Adjoint of the above."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        below: Tensor, here: Tensor, ends: Tensor, index: Tensor, following: Tensor, bins: int
    ) -> tuple[Tensor, Tensor]:
        order = torch.empty(1, bins, device=below.device, dtype=below.dtype)
        shares = (below[:, None] * _before(index, order)).scatter(1, index.expand(2, 1, *index.shape), here[:, None])
        raw = ends.new_zeros(bins, *index.shape).scatter(0, index[None], ends[:1])
        return shares, raw.scatter_add(0, following[None], ends[1:])

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[3:5])

    @staticmethod
    def backward(ctx: Any, shares: Tensor, raw: Tensor) -> Any:
        return *_Pick.apply(shares, raw, *ctx.saved_tensors), None, None, None


def _before(index: Tensor, like: Tensor) -> Tensor:
    """1 for each bin before ``index``, else 0; arithmetic, because comparisons are slow on a CPU."""
    order = torch.arange(like.shape[1], device=like.device, dtype=like.dtype)[:, None, None]
    return torch.clamp(index.to(like.dtype) - order, 0, 1)


def _rise(xi: Planes, h: Planes, s: Planes, d0: Planes, d1: Planes) -> tuple[Planes, Planes]:
    """What the spline has risen in its bin, and its log-derivative."""
    rest = 1 - xi
    mixed, square, twice = xi * rest, xi * xi, 2 * s
    below = torch.reciprocal(s + (d0 + d1 - twice) * mixed)
    lean = s * below
    above = d1 * square + twice * mixed + d0 * (rest * rest)
    return h * (lean * square + d0 * mixed * below), torch.log(lean * lean * above)


def _fall(rise: Planes, h: Planes, s: Planes, d0: Planes, d1: Planes) -> tuple[Planes, Planes]:
    """The place in the bin at which the spline has risen by ``rise``, and minus its log-derivative there."""
    bend = rise * (d0 + d1 - 2 * s)
    a, b, c = h * (s - d0) + bend, h * d0 - bend, -s * rise
    # Rounding can make a discriminant negative; the root in this form does not cancel.
    discriminant = torch.clamp(b * b - 4 * a * c, min=torch.finfo(rise.dtype).tiny)
    xi = 2 * c / (-b - torch.sqrt(discriminant))
    return xi, -_rise(xi, h, s, d0, d1)[1]
