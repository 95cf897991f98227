"""The fitted Gaussian process against brute force, GPyTorch, refits and the laws of mechanics."""

import json
from dataclasses import replace

import gpytorch
import pytest
import torch
from ase.build import molecule

from bayesmol.acquisition import greedy_log_determinant, scoring, select
from bayesmol.data import Labelled, Source, Structures
from bayesmol.errors import ApplicabilityError, DataError
from bayesmol.potentials.gradient_gp import GradientGP
from bayesmol.potentials.gradient_posterior import GradientGPPotential
from bayesmol.representation.distances import inverse_distances, jacobian
from bayesmol.testing import check_potential

SPEC = GradientGP(length_scale=3.0, energy_noise=2e-3, force_noise=0.02)


def energy(positions, species):
    """Morse potential between all pairs, invariant under every exchange of like atoms; in eV."""
    first, second = torch.triu_indices(len(species), len(species), offset=1)
    distance = (positions[first] - positions[second]).norm(dim=1)
    rest = 0.9 + 0.02 * (species[first] + species[second])
    return ((1 - torch.exp(-1.2 * (distance - rest))).square() - 1).sum() - 40.0


def labelled(count, normal, name="CH3OH", noise=0.05):
    atoms = molecule(name)
    species = torch.tensor(atoms.numbers).long()
    positions = torch.tensor(atoms.positions) + noise * normal(count, len(species), 3)
    energies = torch.stack([energy(r, species) for r in positions])
    forces = -torch.stack([torch.func.grad(energy)(r, species) for r in positions])
    pointer = torch.arange(count + 1) * len(species)
    free = torch.zeros(count, 3, 3, dtype=torch.float64)
    structures = Structures(positions.reshape(-1, 3), species.repeat(count), pointer, free, free[:, 0].bool())
    return Labelled(structures, energies=energies, forces=forces.reshape(-1, 3))


@pytest.fixture
def data(normal):
    return labelled(14, normal).split(8, 6)


def cartesian(model, structures):
    """Kernel rows with all Cartesian directions, from the definition."""
    positions = structures.positions.view(len(structures), -1, 3)
    return model._kernel.rows(inverse_distances(positions), jacobian(positions))


def stacked(labels, shift):
    """Energies and Cartesian forces, structure by structure."""
    forces = labels.forces.view(len(labels), -1)
    return torch.cat([labels.energies[:, None] - shift, forces], dim=1).flatten()


def brute(model, train, test, energy_errors=0.0, force_errors=0.0, shift=None):
    """Posterior mean and covariance by one dense solve in Cartesian coordinates."""
    a, b = cartesian(model, train.structures), cartesian(model, test.structures)
    k = lambda x, y: model.amplitude * model._kernel(x, y).to_dense()  # noqa: E731
    width = 1 + 3 * int(train.structures.counts[0])
    variance = torch.full((len(train), width), model.noise_force**2, dtype=torch.float64)
    variance[:, 0] = model.noise_energy**2 + energy_errors**2
    variance[:, 1:] += force_errors**2
    shift = train.energies.mean() if shift is None else shift
    gram, cross = k(a, a) + torch.diag(variance.flatten()), k(a, b)
    mean = cross.mT @ torch.linalg.solve(gram, stacked(train, shift))
    covariance = k(b, b) - cross.mT @ torch.linalg.solve(gram, cross)
    return mean.view(len(test), width), covariance, shift


def test_posterior_is_kernel_regression(data):
    train, test = data
    model = SPEC.fit(train)
    mean, covariance, shift = brute(model, train, test)
    found = model.predict(test, covariance=True)
    torch.testing.assert_close(found.energy.mean, mean[:, 0] + shift, rtol=0, atol=1e-8)
    torch.testing.assert_close(found.forces.mean.view(6, -1), mean[:, 1:], rtol=0, atol=1e-8)
    blocks = covariance.view(6, 19, 6, 19)
    torch.testing.assert_close(found.energy.epistemic.covariance, blocks[:, 0, :, 0], rtol=1e-6, atol=1e-8)
    for s, block in enumerate(found.forces.epistemic.covariance):
        torch.testing.assert_close(block, blocks[s, 1:, s, 1:], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found.forces.aleatoric.variance, torch.full((36, 3), 4e-4).double())
    torch.testing.assert_close(found.energy.aleatoric.variance, torch.full((6,), 4e-6).double())


def test_gpytorch_gives_the_same_posterior(data):
    train, test = data
    model = replace(SPEC, energy_noise=SPEC.force_noise).fit(train)

    class Oracle(gpytorch.models.ExactGP):
        def __init__(self, x, y, likelihood):
            super().__init__(x, y, likelihood)
            self.kernel = gpytorch.kernels.ScaleKernel(model._kernel)

        def forward(self, x):
            matrix = self.kernel(x)
            return gpytorch.distributions.MultivariateNormal(torch.zeros(matrix.shape[0]).double(), matrix)

    rows, targets = cartesian(model, train.structures), stacked(train, train.energies.mean())
    likelihood = gpytorch.likelihoods.GaussianLikelihood().double()
    likelihood.noise = model.noise_force**2
    oracle = Oracle(rows, targets, likelihood).double()
    oracle.kernel.outputscale = model.amplitude
    oracle.eval()
    with torch.no_grad(), gpytorch.settings.fast_computations(False, False, False):
        joint = oracle(cartesian(model, test.structures))
        mine = model.joint(test)
    gap = joint.mean.view(6, 19) - (mine.mean.view(6, 19) - torch.eye(19)[0] * train.energies.mean())
    assert float(gap.abs().max()) < 1e-6
    torch.testing.assert_close(mine.covariance_matrix, joint.covariance_matrix, rtol=1e-4, atol=1e-7)


def test_leave_one_out_is_the_refit(data):
    train, _ = data
    model = SPEC.fit(train)
    left = model.leave_one_out()
    for index in (0, 3, 7):
        rest = train[[k for k in range(8) if k != index]]
        mean, covariance, shift = brute(model, rest, train[[index]], shift=train.energies.mean())
        variance = covariance.diagonal()
        torch.testing.assert_close(left[index].energy.mean, mean[:, 0] + shift, rtol=0, atol=1e-8)
        torch.testing.assert_close(left[index].forces.mean.flatten(), mean[0, 1:], rtol=0, atol=1e-8)
        torch.testing.assert_close(left[index].energy.epistemic.variance, variance[:1], rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(left[index].forces.epistemic.variance.flatten(), variance[1:], rtol=1e-6, atol=1e-9)
        refit = replace(model, training=rest, order=model.order[:7]).predict(train[index])
        # The refit shifts by another mean; the broad prior of the constant makes that harmless.
        torch.testing.assert_close(left[index].energy.mean, refit.energy.mean, rtol=0, atol=1e-6)
        torch.testing.assert_close(left[index].forces.mean, refit.forces.mean, rtol=0, atol=1e-6)


@pytest.mark.parametrize("spec", [SPEC, replace(SPEC, force_noise=0.05)])
def test_laws_of_mechanics(spec, data):
    train, test = data
    check_potential(spec.fit(train), test[:2], extensive=False)


def test_draws_of_the_force_field_have_no_curl(data):
    """A draw on a fine stencil: the work along a small square is zero, up to the error of the quadrature."""
    train, test = data
    model = SPEC.fit(train)
    at = test.structures[0]
    u, v = torch.zeros(2, 6, 3, dtype=torch.float64)
    u[0, 0], v[1, 1] = 1.0, 1.0
    nodes, h = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64) * 0.6**0.5, 0.005
    weights = torch.tensor([5.0, 8.0, 5.0], dtype=torch.float64) / 9
    sides = [(nodes, -1.0, u), (nodes, 1.0, -u), (1.0, nodes, v), (-1.0, nodes, -v)]
    frames, along = [], []
    for a, b, direction in sides:
        a, b = torch.broadcast_tensors(*(torch.as_tensor(c, dtype=torch.float64) for c in (a, b)))
        frames += [replace(at, positions=at.positions + h * (s * u + t * v)) for s, t in zip(a, b, strict=True)]
        along += [w * h * direction.flatten() for w in weights]
    joint = model.joint(Structures.concatenate(frames))
    functional = torch.nn.functional.pad(torch.stack(along), (1, 0)).flatten()
    circulation = functional @ joint.covariance_matrix @ functional
    one_side = torch.nn.functional.pad(torch.stack(along), (1, 0)).flatten() * (torch.arange(12 * 19) < 3 * 19)
    assert float(circulation) < 1e-6 * float(one_side @ joint.covariance_matrix @ one_side)


def test_errors_of_labels_weigh_them(data, normal):
    train, test = data
    energy_errors, force_errors = normal(8).abs(), 0.3 * normal(48, 3).abs()
    noisy = replace(train, energy_errors=energy_errors, force_errors=force_errors)
    model = SPEC.fit(noisy)
    mean, covariance, shift = brute(model, train, test, energy_errors, force_errors.view(8, -1))
    found = model.predict(test)
    torch.testing.assert_close(found.energy.mean, mean[:, 0] + shift, rtol=0, atol=1e-7)
    torch.testing.assert_close(found.forces.mean.view(6, -1), mean[:, 1:], rtol=0, atol=1e-7)
    want = covariance.diagonal().view(6, 19)[:, 1:]
    torch.testing.assert_close(found.forces.epistemic.variance.view(6, -1), want, rtol=1e-6, atol=1e-8)
    left = model.leave_one_out()
    assert bool((left.energy.aleatoric.variance >= energy_errors.square() * (1 - 1e-9)).all())
    assert bool((left.forces.aleatoric.variance >= force_errors.square() * (1 - 1e-9)).all())


def test_frames_without_forces(data):
    train, test = data
    mask = torch.tensor([True] * 5 + [False] * 3)
    forces = torch.where(mask.repeat_interleave(6)[:, None], train.forces, 0.0)
    model = SPEC.fit(replace(train, forces=forces, has_forces=mask))
    rows = torch.cat([torch.ones(8, 1).bool(), mask[:, None].expand(-1, 18)], 1).flatten()
    a, b = cartesian(model, train.structures), cartesian(model, test.structures)
    variance = torch.full((8, 19), 4e-4).double()
    variance[:, 0] = 4e-6
    gram = (model.amplitude * model._kernel(a, a).to_dense() + torch.diag(variance.flatten()))[rows][:, rows]
    cross = model.amplitude * model._kernel(a, b).to_dense()[rows]
    mean = cross.mT @ torch.linalg.solve(gram, stacked(train, train.energies.mean())[rows])
    torch.testing.assert_close(
        model.predict(test).forces.mean.flatten(), mean.view(6, 19)[:, 1:].flatten(), atol=1e-7, rtol=0
    )
    left = model.leave_one_out()
    index = 6
    keep = torch.arange(8) != index
    rest = replace(train, forces=forces, has_forces=mask)[keep]
    refit = replace(model, training=rest, order=model.order[keep]).predict(train[index])
    torch.testing.assert_close(left[index].forces.mean, refit.forces.mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(left[index].forces.variance, refit.forces.variance, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("keep", ["energies", "forces"])
def test_one_kind_of_label_is_enough(keep, data):
    train, test = data
    only = Labelled(train.structures, **{keep: getattr(train, keep)})
    found = SPEC.fit(only).predict(test)
    assert bool(torch.isfinite(found.energy.mean).all()) and bool((found.forces.variance > 0).all())
    if keep == "forces":
        assert float((found.forces.mean - test.forces).abs().mean()) < 0.3 * float(test.forces.abs().mean())
        assert float(found.energy.stddev.min()) > 10, "without energies the constant stays unknown"


def test_conjugate_gradients_give_the_same(data):
    train, test = data
    exact = SPEC.fit(train)
    iterative = replace(exact, exact_rows=60, preconditioner_rows=39)
    first, second = exact.predict(test, covariance=True), iterative.predict(test, covariance=True)
    torch.testing.assert_close(first.energy.mean, second.energy.mean, rtol=0, atol=1e-5)
    torch.testing.assert_close(first.forces.mean, second.forces.mean, rtol=0, atol=1e-5)
    assert bool((second.forces.variance >= first.forces.variance).all()), "fewer labels, more uncertainty"
    few = replace(exact, training=train[[0, 2, 5, 7]], order=exact.order[:4]).predict(test, covariance=True)
    torch.testing.assert_close(few.forces.variance[:18], second.forces.variance[:18], rtol=1e-6, atol=1e-9)
    with pytest.raises(ApplicabilityError, match="exact_rows"):
        iterative.leave_one_out()


def test_force_factor_is_a_root_of_the_covariance(data):
    train, test = data
    model = SPEC.fit(train)
    rows = torch.arange(6 * 19).view(6, 19)[:, 1:].flatten()
    covariance = model.joint(test).covariance_matrix[rows][:, rows]
    whole = torch.cat(model.force_factor(test))
    scale = float(covariance.diagonal().max())
    torch.testing.assert_close(whole @ whole.mT, covariance, rtol=0, atol=1e-6 * scale)
    part = torch.cat(model.force_factor(test, rank=20))
    assert part.shape == (108, 20)
    assert float(torch.linalg.eigvalsh(covariance - part @ part.mT).min()) > -1e-6 * scale


def test_a_batch_is_not_exhausted_by_the_rank_of_its_factor(data, monkeypatch):
    """After the pivots of a factor of fewer columns than labels nothing would be left of any candidate."""
    monkeypatch.setattr(scoring, "_RANK", 1)
    model, pool = SPEC.fit(data[0]), data[1].structures
    exact = greedy_log_determinant(model.force_factor(pool, rank=10**4), model.noise_force, 5)
    chosen = select(model, pool, 5)
    assert set(chosen.indices.tolist()) == set(exact[0])
    assert float(chosen.gains.sum()) == pytest.approx(sum(exact[1]), rel=1e-3)
    assert float(select(model, pool, 5, rank=12).gains[1:].sum()) < 0.5 * float(chosen.gains[1:].sum())


def test_stranger_structures_are_stranger(data, normal):
    train, test = data
    model = SPEC.fit(train)
    known, near, far = (model.strangeness(s) for s in (train, test, labelled(6, normal, noise=0.2)))
    assert torch.equal(near, model.strangeness(test, model.predict(test)))
    assert float(known.mean()) < float(near.mean()) < float(far.mean())


def test_permutations_help_and_invariance_is_exact(data):
    train, test = data
    symmetric = SPEC.fit(train)
    plain = replace(SPEC, permutations=torch.arange(6)[None]).fit(train)
    assert len(symmetric.permutations) == 6
    errors = [float((m.predict(test).forces.mean - test.forces).abs().mean()) for m in (symmetric, plain)]
    assert errors[0] < errors[1]
    before = symmetric.predict(test, covariance=True)
    for order in symmetric.permutations:
        moved = test.structures.positions.view(6, 6, 3)[:, order].reshape(-1, 3)
        after = symmetric.predict(replace(test.structures, positions=moved), covariance=True)
        torch.testing.assert_close(after.energy.mean, before.energy.mean, rtol=0, atol=1e-10)
        torch.testing.assert_close(after.energy.covariance, before.energy.covariance, rtol=0, atol=1e-8)
        torch.testing.assert_close(
            after.forces.mean.view(6, 6, 3), before.forces.mean.view(6, 6, 3)[:, order], rtol=0, atol=1e-9
        )


def test_atoms_may_come_in_another_order(data):
    train, test = data
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = replace(
        test.structures,
        positions=test.structures.positions.view(6, 6, 3)[:, order].reshape(-1, 3),
        species=test.structures.species.view(6, 6)[:, order].reshape(-1),
    )
    model = SPEC.fit(train)
    first, second = model.predict(test), model.predict(shuffled)
    torch.testing.assert_close(second.energy.mean, first.energy.mean, rtol=0, atol=1e-9)
    want = first.forces.mean.view(6, 6, 3)[:, order].reshape(-1, 3)
    torch.testing.assert_close(second.forces.mean, want, rtol=0, atol=1e-8)


def test_state_survives_json(data):
    train, test = data
    model = SPEC.fit(replace(train, source=Source("toy", "CC0-1.0", "nobody", "none")))
    header, arrays = model.state()
    again = GradientGPPotential.from_state(json.loads(json.dumps(header)), arrays)
    assert torch.equal(model.predict(test).forces.mean, again.predict(test).forces.mean)
    assert again.training.source == model.training.source
    with pytest.raises(DataError, match="amplitude"):
        GradientGPPotential.from_state({}, arrays)


def test_results_have_the_type_of_the_input(data):
    train, test = data
    assert SPEC.fit(train).predict(test.structures.to(dtype=torch.float32)).forces.mean.dtype == torch.float32


def test_other_molecules_are_refused(data, normal):
    train, _ = data
    model = SPEC.fit(train)
    with pytest.raises(DataError, match="another composition"):
        model.predict(labelled(2, normal, "H2O"))
    cell = 20 * torch.eye(3).double().expand(8, 3, 3)
    with pytest.raises(DataError, match="periodic"):
        model.predict(replace(train.structures, cell=cell, pbc=torch.ones(8, 3).bool()))


def test_calibration_brings_normalised_residuals_to_one_and_keeps_the_mean(data):
    train, test = data
    model = SPEC.fit(train)
    scaled = model.calibrated()
    left = scaled.leave_one_out()
    forces = ((train.forces - left.forces.mean) / left.forces.stddev).flatten()
    squares = torch.cat([forces, (train.energies - left.energy.mean) / left.energy.stddev]).square()
    assert float(squares.mean()) == pytest.approx(1.0, rel=1e-3), "up to the constant, which does not scale"
    torch.testing.assert_close(scaled.predict(test).forces.mean, model.predict(test).forces.mean, rtol=0, atol=1e-4)
