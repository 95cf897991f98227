"""Parallel tempering: exact populations at every temperature, exchange, evaluations, reproducibility."""

import pytest
import torch

from bayesmol.errors import ConvergenceError, DataError, ShapeError
from bayesmol.inference.metropolis import HamiltonianMonteCarlo
from bayesmol.inference.multistate import multistate
from bayesmol.inference.tempering import ParallelTempering


class Wells:
    """A tilted double well with a barrier of eight."""

    dimension = 1

    def reduced_energy(self, x):
        return (8 * (x.square() - 1).square() + 0.5 * x).sum(1)


LADDER = ParallelTempering.geometric(8.0, 4)
GRID = torch.linspace(-3, 3, 4001).double().unsqueeze(1)


def quadrature(observable):
    energy = Wells().reduced_energy(GRID)
    return [float((-energy / t).softmax(0) @ observable(GRID[:, 0])) for t in LADDER]


@pytest.fixture(scope="module")
def run():
    """All walkers start in the wrong well."""
    spec = ParallelTempering(LADDER, leapfrogs=4, warmup=150, draws=200)
    return spec.fit(Wells(), torch.ones(32, 1).double(), seed=0)


def test_every_temperature_is_right(run):
    exact = zip(quadrature(lambda x: (x > 0).double()), quadrature(torch.square), strict=True)
    for rung, (right, square) in enumerate(exact):
        found = run.draws(rung).expectation(lambda x: torch.cat([(x > 0).double(), x.square()], 1))
        gap = (found.value - torch.tensor([right, square])) / found.standard_error
        assert float(gap.abs().max()) < 4, rung


def test_one_temperature_alone_stays_in_its_well(run):
    """As many walkers and trajectories without exchange keep far more in the well where they started."""
    alone = HamiltonianMonteCarlo(leapfrogs=4, warmup=150, draws=200).fit(Wells(), torch.ones(32, 1).double(), seed=0)
    assert float((alone.values > 0).double().mean()) > 0.5 > float((run.values[0] > 0).double().mean())


def test_free_energies_of_the_temperatures(run):
    found = multistate(run.reduced(), torch.full((4,), 32.0 * 200), effective=torch.full((4,), 1000.0))
    energy = Wells().reduced_energy(GRID)
    logs = torch.stack([(-energy / t).logsumexp(0) for t in LADDER])
    gap = (found.free_energies.value - (logs[0] - logs))[1:] / found.free_energies.standard_error[1:]
    assert float(gap.abs().max()) < 4


def test_what_is_reported(run):
    assert run.values.shape == (4, 32, 200, 1) and run.energies.shape == (4, 32, 200)
    torch.testing.assert_close(run.energies[1].flatten(), Wells().reduced_energy(run.rows(1)))
    assert run.round_trips > 60
    assert bool((run.swaps > 0.4).all()) and bool((run.acceptance - 0.7).abs().max() < 0.15)
    assert bool((run.steps.diff() > 0).all())
    assert run.evaluations == 32 + 4 * 32 * 350 * 4


def test_exact_draws_stay_exact(source):
    """Without warm-up, walkers that start in the densities have them after any number of exchanges."""

    class Spring:
        dimension = 1

        def reduced_energy(self, x):
            return x.square().sum(1) / 2

    start = torch.randn(20_000, 1, generator=source, dtype=torch.float64)
    spec = ParallelTempering((1.0, 1.0 + 1e-9), step=1.2, leapfrogs=1, warmup=0, draws=3)
    run = spec.fit(Spring(), start, seed=0)
    assert float(run.values[:, :, -1].square().mean()) == pytest.approx(1, abs=4 * (2 / 40_000) ** 0.5)
    assert float(run.swaps[0]) == pytest.approx(1, abs=1e-3)


def test_batches_seed_and_draws(source):
    start = torch.randn(5, 1, generator=source, dtype=torch.float64)
    spec = ParallelTempering(LADDER, leapfrogs=2, warmup=4, draws=3, thin=2)
    first = spec.fit(Wells(), start, seed=1)
    small = ParallelTempering(LADDER, leapfrogs=2, warmup=4, draws=3, thin=2, batch=3).fit(Wells(), start, seed=1)
    assert torch.equal(first.values, small.values)
    assert not torch.equal(first.values, spec.fit(Wells(), start, seed=2).values)
    single = spec.fit(Wells(), start.float(), seed=1)
    assert single.values.dtype == torch.float32


def test_bad_input():
    for ladder in ((1.0,), (2.0, 1.0), (0.0, 1.0)):
        with pytest.raises(DataError, match="ladder"):
            ParallelTempering(ladder)
    with pytest.raises(DataError, match="step"):
        ParallelTempering(LADDER, step=-1.0)
    with pytest.raises(ShapeError, match="start"):
        ParallelTempering(LADDER).fit(Wells(), torch.ones(2, 3), seed=0)
    with pytest.raises(ConvergenceError, match="acceptance"):
        ParallelTempering(LADDER, step=1e12, warmup=0, draws=2).fit(Wells(), torch.ones(2, 1), seed=0)
