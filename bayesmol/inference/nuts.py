"""The no-U-turn sampler on a flat vector of parameters; the only file that imports JAX and NumPyro.

Everything runs in 64 bits within a local context: in 32 bits JAX 0.10 has returned wrong batched derivatives on CPUs
without a word, so the gradient is also checked against differences before a chain starts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import numpy as np
import torch
from jaxtyping import Float
from numpyro.infer.hmc import hmc
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.chains import Chains
from bayesmol.inference.random import integer_seed
from bayesmol.progress import progress

__all__ = ["nuts"]

_BLOCKS = 20  # between which the progress bar moves


def nuts(
    log_density: Callable[[Any, Any], Any],
    start: Float[Tensor, "chains parameters"],
    *,
    data: Any = None,
    warmup: int = 500,
    draws: int = 500,
    depth: int = 10,
    acceptance: float = 0.8,
    limit: float | None = 1.05,
    monitor: Callable[[Tensor], Tensor] | None = None,
    seed: int | torch.Generator,
) -> Chains:
    r"""Draws by the no-U-turn sampler with step and diagonal mass adapted in the warm-up.

    Chains run one after the other on a CPU, together on an accelerator. The compiled sampler is kept and used again
    for the same function, settings and shapes, whatever the data.

    Parameters
    ----------
    log_density
        Function of a JAX vector and of ``data``, up to a constant, in nats. Give a function of a module or an object
        with equality, not a new closure at each call, so that it is compiled once.
    start
        One vector a chain; in whitened parameters (unit prior) the adaptation is shortest.
    data
        Arrays (torch, numpy), alone or in tuples and dictionaries.
    depth
        A trajectory has at most :math:`2^{\mathrm{depth}}` steps.
    acceptance
        Mean acceptance that the step is adapted to.
    limit
        Largest :math:`\hat R` of parameters, or of what ``monitor`` makes of them, that is returned; ``None`` returns
        chains that nobody has judged.
    monitor
        As in :meth:`bayesmol.inference.chains.Chains.checked`.

    Raises
    ------
    ShapeError
        If ``start`` is not (chains, parameters).
    DataError
        If the log-density or its gradient is not finite at a start, or the gradient is not its derivative.
    ConvergenceError
        If the chains do not agree.

    References
    ----------
    Hoffman, Gelman, J. Mach. Learn. Res. 15, 1593 (2014); Phan, Pradhan, Jankowiak, arXiv:1912.11554 (NumPyro).
    """
    if start.ndim != 2 or 0 in start.shape:
        raise ShapeError(expected("start", "(chains, parameters)", tuple(start.shape)))
    number = integer_seed(seed)
    with jax.enable_x64(True):
        arrays = jax.tree.map(_array, data)
        places = jax.numpy.asarray(_array(start).astype(np.float64))
        for place in places:
            _check_gradient(log_density, place, arrays)
        begin, move = _sampler(log_density, warmup, depth, acceptance)
        state = begin(jax.random.split(jax.random.PRNGKey(number), len(start)), places, arrays)
        found = _moved(move, state, arrays, warmup, draws)
    values, divergences, steps = (torch.from_numpy(np.array(part)) for part in found)
    chains = Chains(values.to(start), int(divergences.sum()), int(steps.sum()))
    return chains if limit is None else chains.checked(limit, monitor)


def _moved(move: Callable, state: Any, arrays: Any, warmup: int, draws: int) -> list[np.ndarray]:
    """Run warm-up and draws in blocks of one length, so that one block is compiled."""
    length = max(1, math.ceil((warmup + draws) / _BLOCKS))
    parts = []
    with progress("no-U-turn sampler", warmup + draws) as advance:
        for _ in range(math.ceil((warmup + draws) / length)):
            state, part = move(length, state, arrays)
            parts.append([np.asarray(array) for array in part])
            advance(length)
    values, divergences, steps = (np.concatenate(arrays, 1) for arrays in zip(*parts, strict=True))
    kept = slice(warmup, warmup + draws)
    return [values[:, kept], divergences[:, kept], steps[:, : warmup + draws]]


@lru_cache(maxsize=16)
def _sampler(log_density: Callable, warmup: int, depth: int, acceptance: float) -> tuple[Callable, Callable]:
    """Compiled start and moves of all chains: compiling costs more than sampling a small model."""
    begin, step = hmc(potential_fn_gen=lambda data: lambda vector: -log_density(vector, data), algo="NUTS")
    options = {"max_tree_depth": depth, "target_accept_prob": acceptance}

    def over(function: Callable, *items: Any) -> Any:
        if jax.default_backend() == "cpu":
            return jax.lax.map(lambda parts: function(*parts), items)
        return jax.vmap(function)(*items)

    def started(keys: Any, places: Any, data: Any) -> Any:
        return over(lambda key, place: begin(place, warmup, model_args=(data,), rng_key=key, **options), keys, places)

    def moved(length: int, states: Any, data: Any) -> Any:
        def one(state: Any, _: None) -> tuple[Any, Any]:
            state = step(state, model_args=(data,))
            return state, (state.z, state.diverging & (state.i > warmup), state.num_steps)

        return over(lambda state: jax.lax.scan(one, state, None, length), states)

    return jax.jit(started), jax.jit(moved, static_argnums=0)


def _array(part: Any) -> np.ndarray:
    return part.detach().cpu().numpy() if isinstance(part, Tensor) else np.asarray(part)


def _check_gradient(log_density: Callable, place: Any, data: Any) -> None:
    """The derivative along the gradient against a central difference, in 64 bits."""
    value, slope = _slope(log_density)(place, data)
    length = float(jax.numpy.linalg.norm(slope))
    if value.dtype != np.float64 or not (math.isfinite(float(value)) and math.isfinite(length)):
        raise DataError(expected("log_density", "finite numbers of 64 bits at the start", f"{value}, {value.dtype}"))
    if length == 0:
        return
    # A change of the value by 1e-5 of itself is far above rounding; a start near the mode is left by 1e-4 at most.
    step = min(1e-5 * max(1.0, abs(float(value))) / length, 1e-4) * slope / length
    far = [float(_slope(log_density)(place + sign * step, data)[0]) for sign in (1, -1)]
    found, wanted = far[0] - far[1], 2 * float(jax.numpy.linalg.norm(step)) * length
    if not math.isclose(found, wanted, rel_tol=1e-3, abs_tol=1e-9 * max(1.0, abs(float(value)))):
        raise DataError(expected("log_density", f"a gradient that is its derivative, {found:.6g}", f"{wanted:.6g}"))


@lru_cache(maxsize=16)
def _slope(log_density: Callable) -> Callable:
    return jax.jit(jax.value_and_grad(log_density))
