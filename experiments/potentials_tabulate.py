"""What tables of a pair potential keep, and what they save: splines against the kernel, means and variances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from bayesmol.calibration.plots import panels
from bayesmol.data import Labelled, Structures
from bayesmol.errors import DataError, expected
from bayesmol.potentials.ace_rows import ENERGY, FORCE, all_rows
from bayesmol.potentials.pair_gp import PairGP
from bayesmol.potentials.pair_gp_posterior import PairGPPotential
from bayesmol.potentials.tabulation import TabulatedPotential, tabulated
from bayesmol.report import Study, cpu_seconds
from bayesmol.representation.neighbours import neighbours

_NUMBERS = 4_000_000  # kernel values at a time


def tabulate(
    study: Study,
    train: Labelled,
    test: Labelled,
    *,
    specification: PairGP | None = None,
    repeats: int = 20,
    seed: int = 0,
) -> dict[str, Figure]:
    """Accuracy of the pair potential, deviation of its tables on unseen structures, and CPU time of every form.

    The kernel form is the textbook one: a sum over all pairs of all training structures for each pair, for the mean
    alone. Its variance costs the square of the labels on top and is left out, so the ratios are lower bounds. The
    sparse form is :class:`PairGP` itself, through its features. Every form gives energies and forces of the largest
    test structure; ``ratio_to_kernel`` is kernel over table, means alone, and ``ratio_to_kernel_with_variances`` is
    that of the kernel's mean over means, variances and stress of the table.
    """
    plain = replace(train, stresses=None, stress_errors=None, has_stresses=torch.zeros_like(train.has_stresses))
    with study.stage("train"):
        exact = (specification or PairGP()).fit(plain, seed=seed)
    with study.stage("tabulate"):
        table = tabulated(exact)
    with study.stage("evaluate"):
        study.judge(table.predict(test.structures), test, seed=seed)
        _deviations(study, exact, table, test.structures)
    with study.stage("time"):
        _times(study, exact, table, plain, test.structures, repeats)
    kernel, shape = exact.model.representation.basis, table.table.splines.shape
    study.notes.append(
        f"cutoff {kernel.cutoff:g} Å, length scale {kernel.length_scale:g} of the distance, chosen on left-out "
        f"training structures; {shape[1]} spline coefficients, {shape[2] - 1} functions"
    )
    return {"pair_functions": pair_functions(exact, table)}


def _deviations(study: Study, exact: PairGPPotential, table: TabulatedPotential, structures: Structures) -> None:
    """Largest differences on structures that the table was not checked on."""
    wanted, got = exact.predict(structures), table.predict(structures)
    for name, unit in {"energy": "eV", "forces": "eV/Å"}.items():
        first, second = getattr(wanted, name), getattr(got, name)
        study.add(f"deviation_{name}", float((first.mean - second.mean).abs().max()), unit)
        gap = first.epistemic.stddev - second.epistemic.stddev
        study.add(f"deviation_{name}_stddev", float(gap.abs().max()), unit)


def _times(
    study: Study, exact: PairGPPotential, table: TabulatedPotential, train: Labelled, test: Structures, repeats: int
) -> None:
    one = test[int(test.counts.argmax())]
    kernel = KernelForm.of(exact, train)
    forms = {"table": lambda: table.surface(one), "table_with_variances": lambda: table.predict(one)}
    forms |= {"sparse": lambda: exact.surface(one), "sparse_with_variances": lambda: exact.predict(one)}
    spent = {name: _seconds(form, repeats) for name, form in forms.items()}
    spent["neighbours"] = _seconds(lambda: neighbours(one, table.table.cutoff), repeats)
    start = cpu_seconds()
    found = kernel(one)
    spent["kernel"] = cpu_seconds() - start
    wanted = exact.surface(one)
    study.add("kernel_form_error", float((found[1] - wanted.forces).abs().max()), "eV/Å")
    for name, seconds in spent.items():
        study.add(f"predict_cpu_milliseconds_{name}", 1000 * seconds, "ms/structure")
    study.add("atoms_timed", int(one.counts))
    study.add("ratio_to_kernel", spent["kernel"] / spent["table"])
    study.add("ratio_to_kernel_with_variances", spent["kernel"] / spent["table_with_variances"])
    study.add("ratio_to_sparse", spent["sparse"] / spent["table"])
    study.add("ratio_to_sparse_with_variances", spent["sparse_with_variances"] / spent["table_with_variances"])


def _seconds(action: Callable[[], Any], repeats: int) -> float:
    """Median CPU seconds of a call."""
    action()
    spent = []
    for _ in range(repeats):
        start = cpu_seconds()
        action()
        spent.append(cpu_seconds() - start)
    return float(np.median(spent))


@dataclass(frozen=True, eq=False)
class KernelForm:
    r"""Mean of a pair potential of one element as a sum over the training pairs q,

    .. math:: f(r) = s^2 \sum_q \left[ a_q\, k(r, r_q) + b_q\, \partial k(r, r_q) / \partial r_q \right]

    with a from the representer weights of the energies, and b from those of the forces.
    """

    exact: PairGPPotential
    distances: Tensor
    values: Tensor
    slopes: Tensor

    @classmethod
    def of(cls, exact: PairGPPotential, train: Labelled) -> KernelForm:
        """Representer weights :math:`N^{-1} (y - \\Phi m)` of the labels, for each training pair."""
        model, data = exact.model, train.to(dtype=torch.float64)
        if len(model.representation.species) > 1:
            raise DataError(expected("train", "one element", model.representation.species))
        rows = all_rows(model, data)
        weights = (rows.targets - rows.whitened(model) @ exact.posterior.mean) / rows.noise(model)
        energy = torch.zeros(len(data), dtype=torch.float64).index_put(
            (rows.group[rows.kind == ENERGY],), weights[rows.kind == ENERGY]
        )
        atoms = data.has_forces[data.structures.structure_index]
        force = torch.zeros_like(data.structures.positions)
        order = torch.argsort(rows.group[rows.kind == FORCE], stable=True)
        force[atoms] = weights[rows.kind == FORCE][order].view(-1, 3)
        first, second, vectors, distances, share = _half(data.structures, model.representation.basis.cutoff)
        owner = data.structures.structure_index[first]
        pull = torch.where((first == second)[:, None], force[first], force[first] - force[second])
        slopes = (pull * vectors).sum(1) / distances
        amplitude = float(model.scales()[0]) ** 2
        return cls(exact, distances, amplitude * share * energy[owner], amplitude * slopes)

    def __call__(self, structures: Structures) -> tuple[Tensor, Tensor]:
        """Energies and forces, the repulsion and the reference energies included."""
        model = self.exact.model
        first, second, vectors, distances, share = _half(structures, model.representation.basis.cutoff)
        value, slope = self._function(distances)
        base = model.baseline(structures)
        constants = self.exact.posterior.mean[-1] * structures.counts
        energies = (base[0] + constants).index_add(0, structures.structure_index[first], share * value)
        pull = (slope / distances)[:, None] * vectors
        other = torch.where((first == second)[:, None], 0.0, -pull)
        return energies, base[1].index_add(0, first, pull).index_add(0, second, other)

    def _function(self, distances: Tensor) -> tuple[Tensor, Tensor]:
        """Pair function and its derivative: the kernel with all training pairs, a bounded number at a time."""
        kernel = self.exact.model.representation.basis
        value, slope = torch.zeros_like(distances), torch.zeros_like(distances)
        for part in torch.arange(len(self.distances)).split(max(1, _NUMBERS // len(distances))):
            near, far = distances[:, None], self.distances[part]
            place, other = torch.log(near + 0.5), torch.log(far + 0.5)
            away = (place - other) / kernel.length_scale**2
            bare = torch.exp(-0.5 * kernel.length_scale**2 * away.square())
            (w, dw), (v, dv) = kernel._window(near), kernel._window(far)
            inner, outer = away / (far + 0.5), -away / (near + 0.5)
            mixed = 1 / (kernel.length_scale**2 * (near + 0.5) * (far + 0.5))
            along = dv + v * inner
            value += w[:, 0] * ((bare * v) @ self.values[part] + (bare * along) @ self.slopes[part])
            steep = dw + w * outer
            slope += (bare * steep * v) @ self.values[part]
            slope += (bare * (steep * along + w * v * mixed)) @ self.slopes[part]
        return value, slope


def _half(structures: Structures, cutoff: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Each pair once; an atom and its own images in both directions, with half of the energy."""
    edges = neighbours(structures, cutoff)
    kept = edges.first <= edges.second
    first, second, vectors = edges.first[kept], edges.second[kept], edges.vectors[kept]
    share = torch.where(first == second, 0.5, 1.0).to(vectors)
    return first, second, vectors, vectors.norm(dim=1), share


def pair_functions(exact: PairGPPotential, table: TabulatedPotential) -> Figure:
    """Pair functions with bands of two standard deviations, and these deviations by the kernel and by the table."""
    from ase.data import chemical_symbols

    species = exact.model.representation.species
    figure, axes = panels((7.2, 3.3), 1, 2)
    left, right = np.ravel(axes)
    distances = torch.linspace(0.5, table.table.cutoff - 1e-3, 300, dtype=torch.float64)
    knots = torch.arange(table.table.splines.shape[1] - 2, dtype=torch.float64) * table.table.step
    depth = 0.0
    for b, second in enumerate(species):
        for a, first in enumerate(species[: b + 1]):
            found = exact.functions(distances, first, second)
            mean, spread = 1000 * found.mean, 1000 * found.stddev
            depth = max(depth, float(-mean[distances > 1.0].min()))
            (line,) = left.plot(distances, mean, label=f"{chemical_symbols[first]}–{chemical_symbols[second]}")
            left.fill_between(distances, mean - 2 * spread, mean + 2 * spread, color=line.get_color(), alpha=0.25, lw=0)
            splines = 1000 * table.table.splines[b * (b + 1) // 2 + a, :, 1:]
            values = (splines[:-2] + 4 * splines[1:-1] + splines[2:]) / 6
            shown = (knots >= 0.5) & (knots < table.table.cutoff - 1e-3)
            right.semilogy(distances, spread, color=line.get_color())
            right.semilogy(knots[shown][::8], values.norm(dim=1)[shown][::8], ".", color=line.get_color(), ms=4)
    left.set(xlabel="distance / Å", ylabel="pair function / meV", ylim=(-1.5 * depth, 3 * depth) if depth else None)
    right.set(xlabel="distance / Å", ylabel="standard deviation / meV", title="kernel (lines), table (dots)")
    left.legend(frameon=False)
    return figure
