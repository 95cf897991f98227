"""Time, memory and picks of the batch rules on pools of 10⁵ and 10⁶ rows, against the full search in the same run."""

import time
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.acquisition.batches import Batch
from bayesmol.acquisition.determinants import determinant
from bayesmol.acquisition.diversity import farthest, largest_cluster
from bayesmol.data import Structures
from bayesmol.inference.random import generator
from bayesmol.progress import progress
from bayesmol.report import Study, peak_memory_mb
from bayesmol.representation.atomic import atomic_features

NOISE = 1.0
JITTER = 0.02  # Å
TIE = 1e-11
# bmdal-reg 3.0.2, patched to run, one thread, 256 of 10⁵ rows of 128 Gaussian features
REFERENCE = {"lcmd": 5.43, "k_centre": 4.56, "logdet": 3.75}

Rule = Callable[[Tensor, int], Batch]
RULES: dict[str, Rule] = {
    "lcmd": largest_cluster,
    "logdet": lambda features, size: determinant(features, size, noise=NOISE),
    "k_centre": farthest,
}


def selection(
    study: Study,
    structures: Structures,
    *,
    rows: int = 100_000,
    large: int = 1_000_000,
    width: int = 128,
    size: int = 256,
    seed: int = 0,
) -> None:
    """CPU seconds of each rule on Gaussian rows and on rows made of atoms, and whether the picks are the full search's.

    Parameters
    ----------
    structures
        Whose atoms, moved at random, make the realistic pool.
    rows, large
        Sizes of the pools; the second is not searched in full.
    """
    source = generator(seed)
    pools = {"": torch.randn(rows, width, generator=source)}
    with study.stage("features of atoms"):
        pools["_clustered"] = atom_pool(structures, rows, width, source)
    for ending, features in pools.items():
        for name, rule in RULES.items():
            batch, seconds = timed(rule, features, size)
            chosen, full = timed(FULL[name], features, size)
            study.add(f"select_cpu_seconds_{name}{ending}", seconds, "s")
            study.add(f"select_speedup_{name}{ending}", full / seconds)
            study.add(f"same_picks_{name}{ending}", float(batch.indices.tolist() == chosen))
    study.add("select_peak_memory_mb", peak_memory_mb(), "MB")
    pools.clear()
    features = torch.randn(large, width, generator=source)
    for name, rule in RULES.items():
        study.add(f"select_cpu_seconds_{name}_1e6", timed(rule, features, size)[1], "s")
    study.add("select_peak_memory_mb_1e6", peak_memory_mb(), "MB")
    study.notes.append(
        "full search: the same rule in float64 with one product of the whole pool a pick. bmdal-reg does not run "
        "under NumPy 2 and is missing; measured before with a patch, CPU s: "
        + ", ".join(f"{name} {seconds}" for name, seconds in REFERENCE.items())
        + ". CPU seconds grow when other programs share the caches."
    )


def timed(rule: Callable, features: Tensor, size: int) -> tuple[object, float]:
    """What a rule gives, and its CPU seconds."""
    start = time.process_time()
    found = rule(features, size)
    return found, time.process_time() - start


def atom_pool(structures: Structures, rows: int, width: int, source: torch.Generator) -> Float[Tensor, "rows width"]:
    r"""Random features :math:`\sqrt{2} \cos(\Omega x + b)` of the environments x of atoms moved by 0.02 Å."""
    atoms = int(structures.counts.sum())
    copies = -(-rows // atoms)
    parts = []
    with progress("features of atoms", copies) as advance:
        for _ in range(copies):
            moved = structures.positions + JITTER * torch.randn(
                structures.positions.shape, generator=source, dtype=structures.positions.dtype
            )
            parts.append(atomic_features(replaced(structures, moved)).values)
            advance()
    values = torch.cat(parts)[:rows].double()
    values = (values - values.mean(0)) / values.std(0).clamp_min(1e-12)
    frequencies = torch.randn(values.shape[1], width, generator=source, dtype=torch.float64) / values.shape[1] ** 0.5
    phases = 2 * torch.pi * torch.rand(width, generator=source, dtype=torch.float64)
    return (2**0.5 * torch.cos(values @ frequencies + phases)).float()


def replaced(structures: Structures, positions: Float[Tensor, "atoms 3"]) -> Structures:
    """The same structures at other positions."""
    from dataclasses import replace

    return replace(structures, positions=positions)


def full_determinant(features: Tensor, size: int) -> list[int]:
    """Pivoted Cholesky of the whole pool."""
    rows = features.double() / NOISE
    variances, columns, chosen = rows.square().sum(1), [], []
    with progress("full search", size) as advance:
        for _ in range(size):
            best = _first(variances)
            variance = float(variances[best])
            column = rows @ rows[best]
            for earlier in columns:
                column.sub_(earlier, alpha=float(earlier[best]))
            columns.append(column.div_((1 + variance) ** 0.5))
            variances.sub_(column.square())
            variances[best] = -1.0
            chosen.append(best)
            advance()
    return chosen


def full_spread(features: Tensor, size: int, clustered: bool) -> list[int]:
    """All distances from each new centre, and all sums of clusters anew."""
    first = _first(features.double().square().sum(1))
    rows = features.double() - features.double().mean(0)
    squares = rows.square().sum(1)
    distances, owners = torch.full_like(squares, torch.inf), torch.zeros(len(rows), dtype=torch.long)
    chosen = [first]
    with progress("full search", size) as advance:
        for number in range(size):
            found = squares + squares[chosen[-1]] - 2 * (rows @ rows[chosen[-1]])
            owners[found < distances] = number
            distances = torch.minimum(distances, found)
            distances[chosen] = 0.0
            eligible = distances.clone()
            if clustered:
                totals = owners.bincount(weights=distances)
                eligible[owners != _first(totals)] = -1.0
            eligible[chosen] = -1.0
            chosen.append(_first(eligible))
            advance()
    return chosen[:size]


def _first(values: Float[Tensor, " rows"]) -> int:
    return int((values >= values.max() * (1 - TIE)).nonzero()[0])


FULL: dict[str, Callable[[Tensor, int], list[int]]] = {
    "lcmd": lambda features, size: full_spread(features, size, True),
    "k_centre": lambda features, size: full_spread(features, size, False),
    "logdet": full_determinant,
}
