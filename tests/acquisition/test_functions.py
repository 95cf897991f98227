import math

import pytest
import torch
from scipy import stats

from bayesmol.acquisition import functions
from bayesmol.acquisition.functions import FUNCTIONS, ball_exceedance, exceedance, values
from bayesmol.acquisition.information import expected_information_gain
from bayesmol.data import Structures
from bayesmol.errors import DataError
from bayesmol.posterior import Gaussian, Mixture, Prediction


def molecules(count=5, seed=0):
    source = torch.Generator().manual_seed(seed)
    sizes = torch.randint(2, 5, (count,), generator=source)
    pointer = torch.cat([torch.zeros(1, dtype=torch.long), sizes.cumsum(0)])
    grid = 3.0 * torch.arange(int(pointer[-1]))[:, None] * torch.tensor([1.0, 0.0, 0.0])
    positions = (grid + torch.rand(int(pointer[-1]), 3, generator=source)).double()
    species = torch.ones(len(positions), dtype=torch.long)
    return Structures(
        positions, species, pointer, torch.zeros(count, 3, 3).double(), torch.zeros(count, 3, dtype=torch.bool)
    )


class Linear:
    """Forces linear in 8 functions of the positions, with standard normal weights; noise differs between atoms."""

    noise_force = 0.1
    kind = "gaussian"

    def rows(self, structures):
        mixing = torch.randn(3, 8, generator=torch.Generator().manual_seed(7)).double()
        phases = torch.tensor([0.0, 1.0, 2.0]).double()
        return 0.3 * torch.sin((structures.positions @ mixing).unsqueeze(1) + phases[:, None]).reshape(-1, 8)

    def noise(self, structures):
        return (0.05 + 0.1 * structures.positions[:, 1:2].abs()).expand(-1, 3)

    def force_factor(self, structures, rank=512, seed=0):
        return list(self.rows(structures).split((3 * structures.counts).tolist()))

    def predict(self, structures, covariance=False):
        rows, noise = self.rows(structures), self.noise(structures)
        known = rows.square().sum(1).reshape(-1, 3)
        blocks = []
        for own, spread in zip(self.force_factor(structures), noise.split(structures.counts.tolist()), strict=True):
            blocks.append(own @ own.T + torch.diag(spread.flatten().square()))
        total = known + noise.square()
        mean = structures.positions.cos()
        joint = tuple(blocks) if covariance else None
        forces = Gaussian(mean, total, unit="eV/Å", covariance=joint, epistemic_variance=known)
        energy = torch.arange(1.0, len(structures) + 1).double()
        energies = Gaussian(0 * energy, energy + 5, unit="eV", epistemic_variance=energy)
        return Prediction(energies, forces, structures.pointer)


class Ensemble(Linear):
    """The same as a large ensemble of its draws."""

    def predict(self, structures, covariance=False):
        first = super().predict(structures)
        weights = torch.randn(4000, 8, generator=torch.Generator().manual_seed(3)).double()
        means = first.forces.mean + (weights @ self.rows(structures).T).reshape(4000, -1, 3)
        noise = self.noise(structures).square().expand_as(means).contiguous()
        return Prediction(first.energy, Mixture(means, noise, unit="eV/Å"), structures.pointer)


@pytest.fixture
def pool():
    return molecules()


def parts(tensor, structures):
    return tensor.split(structures.counts.tolist())


def test_spreads_are_those_of_the_epistemic_part(pool):
    model, counts = Linear(), pool.counts
    energy = torch.arange(1.0, 6.0).double() / counts.square()
    torch.testing.assert_close(values("energy_variance", model, pool), energy)
    square = [own.square().sum(1) for own in parts(model.rows(pool).reshape(-1, 24), pool)]
    torch.testing.assert_close(values("force_variance", model, pool), torch.stack([s.mean() for s in square]))
    largest = torch.stack([s.max().sqrt() for s in square])
    torch.testing.assert_close(values("max_force_deviation", model, pool), largest)
    length = parts(pool.positions.cos().norm(dim=1), pool)
    want = torch.stack([(s.sqrt() / (f + 0.2)).max() for s, f in zip(square, length, strict=True)])
    torch.testing.assert_close(values("relative_force_deviation", model, pool), want)


def test_information_counts_the_noise_of_each_atom(pool):
    model = Linear()
    noise = [spread.flatten() for spread in parts(model.noise(pool), pool)]
    factors = zip(model.force_factor(pool), noise, strict=True)
    want = torch.stack([expected_information_gain(own, spread) for own, spread in factors])
    torch.testing.assert_close(values("information", model, pool), want)


def test_functions_of_a_target_by_conditioning(pool):
    model, target = Linear(), molecules(3, seed=9)
    aim, want, told = model.rows(target), [], []
    for factor in model.force_factor(pool):
        gain = torch.linalg.solve(factor @ factor.T + 0.01 * torch.eye(len(factor)).double(), factor)
        left = aim @ (torch.eye(8).double() - factor.T @ gain) @ aim.T
        before, noise = aim @ aim.T, 0.01 * torch.eye(3).double()
        want.append(float((before - left).trace()) / len(target.positions))
        atoms = [slice(i, i + 3) for i in range(0, len(aim), 3)]
        logs = [torch.logdet(before[a, a] + noise) - torch.logdet(left[a, a] + noise) for a in atoms]
        told.append(0.5 * float(torch.stack(logs).mean()))
    assert values("integrated_variance", model, pool, target=target).tolist() == pytest.approx(want)
    assert values("predictive_information", model, pool, target=target).tolist() == pytest.approx(told)


def test_ensembles_by_their_members(pool):
    exact, ensemble = Linear(), Ensemble()
    for name in ("force_variance", "max_force_deviation", "relative_force_deviation", "information"):
        first, second = values(name, exact, pool), values(name, ensemble, pool)
        torch.testing.assert_close(first, second, rtol=0.05, atol=0)
    first, second = (exceedance(model, pool, 0.6, size=4000) for model in (exact, ensemble))
    torch.testing.assert_close(first, second, rtol=0, atol=0.04)


def test_noise_of_labels_attracts_nobody(pool):
    class Loud(Linear):
        noise_force = 5.0

        def noise(self, structures):
            return torch.full_like(structures.positions, 5.0)

    for name in ("energy_variance", "force_variance", "max_force_deviation", "relative_force_deviation"):
        torch.testing.assert_close(values(name, Loud(), pool), values(name, Linear(), pool))
    loud, quiet = (values("exceedance", model, pool, tolerance=0.5) for model in (Loud(), Linear()))
    torch.testing.assert_close(loud, quiet, rtol=0, atol=0.06)
    assert bool((values("information", Loud(), pool) < values("information", Linear(), pool)).all())
    assert bool((exceedance(Loud(), pool, 0.5, noisy=True) > exceedance(Loud(), pool, 0.5)).all())


def test_a_vector_exceeds_a_ball_as_maxwell_and_its_relatives_say(normal):
    scales = torch.tensor([1e-3, 0.1, 0.5, 1.0, 2.0, 100.0], dtype=torch.float64)
    round_ = torch.eye(3).double() * scales[:, None, None].square()
    want = stats.chi(3).sf((1 / scales).numpy())
    torch.testing.assert_close(ball_exceedance(round_, 1.0), torch.from_numpy(want), rtol=0, atol=1e-10)
    line = torch.diag_embed(torch.tensor([[0.0, 0.0, 0.3]], dtype=torch.float64))
    plane = torch.diag_embed(torch.tensor([[0.3, 0.0, 0.3]], dtype=torch.float64))
    assert float(ball_exceedance(line, 1.0)) == pytest.approx(math.erfc(1 / math.sqrt(0.6)), abs=1e-10)
    assert float(ball_exceedance(plane, 1.0)) == pytest.approx(math.exp(-1 / 0.6), abs=1e-9)
    assert float(ball_exceedance(torch.zeros(1, 3, 3).double(), 1.0)) == 0
    root = normal(3, 3)
    share = float(((normal(400_000, 3) @ root.T).norm(dim=1) > 1.5).double().mean())
    assert float(ball_exceedance((root @ root.T)[None], 1.5)) == pytest.approx(share, abs=4e-3)


def test_exceedance_of_a_structure_is_that_of_its_joint_forces(pool):
    model, tolerance = Linear(), 0.7
    found = exceedance(model, pool, tolerance, size=4000)
    forces = model.predict(pool, covariance=True).forces.epistemic
    wrong = (forces.sample(20_000, seed=5) - forces.mean).norm(dim=2) > tolerance
    want = torch.stack([own.any(1).double().mean() for own in wrong.split(pool.counts.tolist(), dim=1)])
    torch.testing.assert_close(found, want, rtol=0, atol=0.035)
    assert torch.equal(found, exceedance(model, pool, tolerance, size=4000))
    assert bool((exceedance(model, pool, 0.5) >= found - 0.03).all())


def test_rare_errors_still_rank(pool):
    found = exceedance(Linear(), pool, 5.0, size=100)
    assert bool((found > 0).all()) and float(found.max()) < 1e-3 and len(set(found.tolist())) == 5


def test_independent_forces_are_exact():
    class Independent(Linear):
        def predict(self, structures, covariance=False):
            forces = Gaussian(structures.positions, torch.full_like(structures.positions, 0.04), unit="eV/Å")
            return Prediction(
                Gaussian(torch.zeros(5).double(), torch.ones(5).double(), unit="eV"), forces, structures.pointer
            )

    pool = molecules()
    want = 1 - stats.chi(3).cdf(0.5 / 0.2) ** pool.counts.numpy()
    assert exceedance(Independent(), pool, 0.5).tolist() == pytest.approx(want.tolist(), abs=1e-10)
    information = values("information", Independent(), pool)
    torch.testing.assert_close(information, 1.5 * pool.counts.double() * math.log(5))


def test_chunks_change_nothing(pool, monkeypatch):
    target, model = molecules(2, seed=4), Linear()
    names = [name for name in FUNCTIONS if name not in ("exceedance", "energy_variance")]
    aims = {name: {"target": target} for name in ("predictive_information", "integrated_variance")}
    whole = {name: values(name, model, pool, **aims.get(name, {})) for name in names}
    monkeypatch.setattr(functions, "_MEMORY", 1)
    monkeypatch.setattr(functions, "_RANK", len(target.positions))
    for name, value in whole.items():
        torch.testing.assert_close(values(name, model, pool, **aims.get(name, {})), value)


def test_a_covariance_over_all_structures_is_cut(pool):
    class Whole(Linear):
        def predict(self, structures, covariance=False):
            found = super().predict(structures, covariance)
            if not covariance:
                return found
            joint = torch.block_diag(*found.forces.covariance)
            known = found.forces.epistemic.variance
            forces = Gaussian(
                found.forces.mean, found.forces.variance, unit="eV/Å", covariance=joint, epistemic_variance=known
            )
            return Prediction(found.energy, forces, found.pointer)

    torch.testing.assert_close(values("information", Whole(), pool), values("information", Linear(), pool))
    torch.testing.assert_close(exceedance(Whole(), pool, 0.8), exceedance(Linear(), pool, 0.8), rtol=0, atol=0.06)


def test_every_name_is_described_and_works(pool):
    options = {"exceedance": {"tolerance": 0.5}}
    options |= {name: {"target": pool} for name in ("predictive_information", "integrated_variance")}
    for name, line in FUNCTIONS.items():
        found = values(name, Linear(), pool, **options.get(name, {}))
        assert found.shape == (5,) and found.dtype == torch.float64 and bool((found >= 0).all()) and line
    generator = torch.Generator().manual_seed(1)
    assert values("exceedance", Linear(), pool.to_ase(), tolerance=0.5, seed=generator).shape == (5,)


def test_bad_input(pool):
    with pytest.raises(DataError, match="function: expected one of"):
        values("variance", Linear(), pool)
    with pytest.raises(DataError, match="tolerance: expected to be given"):
        values("exceedance", Linear(), pool)
    with pytest.raises(DataError, match="target: expected nothing"):
        values("force_variance", Linear(), pool, target=pool)
    with pytest.raises(DataError, match="tolerance: expected nothing"):
        values("force_variance", Linear(), pool, tolerance=0.1)
    many = Structures.concatenate([pool] * 200)
    with pytest.raises(DataError, match="at most 2048 atoms in all, got 3000"):
        values("integrated_variance", Linear(), pool, target=many)
    with pytest.raises(DataError, match="positive error"):
        exceedance(Linear(), pool, 0.0)
