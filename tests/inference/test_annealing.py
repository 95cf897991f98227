"""Annealed importance sampling and sequential Monte Carlo: Jarzynski's identity, modes, infinities, coverage."""

import math
from dataclasses import replace

import pytest
import torch

from bayesmol.errors import ConvergenceError, DataError
from bayesmol.inference.annealing import AnnealedImportance, SequentialMonteCarlo
from bayesmol.inference.importance import log_partition
from bayesmol.inference.particles import Schedule
from bayesmol.testing import assert_calibrated


class Normal:
    """An isotropic normal proposal."""

    def __init__(self, scale, dimension=2):
        self.scale, self.dimension = scale, dimension

    def log_prob(self, x):
        constant = self.dimension * math.log(self.scale * math.sqrt(2 * math.pi))
        return -x.square().sum(1) / (2 * self.scale**2) - constant

    def sample(self, size, *, seed):
        source = torch.Generator().manual_seed(seed)
        x = self.scale * torch.randn(size, self.dimension, generator=source, dtype=torch.float64)
        return x, self.log_prob(x)


class Modes:
    """Two narrow modes with the weights 0.3 and 0.7 and the partition function e²."""

    dimension = 2
    log_z = 2.0

    def reduced_energy(self, x):
        centres = torch.tensor([[3.0, 0.0], [-3.0, 1.0]]).to(x)
        logs = torch.tensor([0.3, 0.7]).to(x).log() - ((x.unsqueeze(1) - centres) / 0.5).square().sum(2) / 2
        return -logs.logsumexp(1) + math.log(2 * math.pi * 0.25) - self.log_z


class Half(Normal):
    """The right half of a normal law, as a target: infinite energy on the left."""

    def __init__(self):
        super().__init__(1.0, 1)

    def reduced_energy(self, x):
        return torch.where(x[:, 0] > 0, x.square().sum(1) / 2, math.inf)


SMC = SequentialMonteCarlo(1024, islands=16, trajectories=1, leapfrogs=3)
AIS = AnnealedImportance(1000, leapfrogs=3)


@pytest.mark.parametrize("spec", [SMC, AIS], ids=["smc", "ais"])
def test_partition_function_and_populations(spec):
    found = spec.fit(Normal(3.0), Modes(), seed=0)
    z, right = found.log_partition, found.expectation(lambda x: x[:, 0] > 0)
    assert abs(float(z.value) - 2) < 3.5 * float(z.standard_error) and float(z.standard_error) < 0.15
    assert abs(float(right.value) - 0.3) < 3.5 * float(right.standard_error)
    # The ladder holds the conditional effective size, and beats plain importance sampling.
    x, log_q = Normal(3.0).sample(spec.particles, seed=1)
    plain = log_partition(-Modes().reduced_energy(x) - log_q)
    assert found.effective_sample_size > 1.5 * float(plain.effective_sample_size)
    rungs = len(found.schedule.ladder)
    assert 4 < rungs < 20 and float(found.schedule.ladder[-1]) == 1
    assert found.evaluations == spec.particles * (1 + rungs * (1 + 3))
    assert found.acceptance.shape == found.effective.shape == (rungs,)


def test_jarzynskis_identity():
    """Paths on a ladder fixed in advance: the mean of e^{-W} is the partition function, W the work of a path."""
    ladder = torch.linspace(0, 1, 13)[1:].double().square()
    ladder[-1] = 1.0
    fixed = Schedule(ladder, torch.full((12,), 0.8), torch.linspace(3, 0.7, 12).unsqueeze(1).repeat(1, 2))
    found = AnnealedImportance(3000, leapfrogs=2).fit(Normal(3.0), Modes(), schedule=fixed, seed=5)
    estimate = log_partition(found.log_weights.flatten())
    assert abs(float(estimate.value) - 2) < 2 * float(estimate.standard_error)
    # The second law: the mean work is above the free-energy difference.
    assert float(-found.log_weights.mean()) > -2
    assert found.fixed and torch.equal(found.schedule.ladder, ladder)


def test_infinite_energies_are_dead_ends():
    found = SMC.fit(Normal(2.0, 1), Half(), seed=0)
    z = found.log_partition
    assert abs(float(z.value) - math.log(math.sqrt(math.pi / 2))) < 3.5 * float(z.standard_error)
    alive = torch.isfinite(found.log_weights)
    assert bool((found.rows[alive] > 0).all())


def test_a_mode_without_particles_is_lost_and_not_seen():
    """What no annealing can promise: a proposal on one of two far modes gives 0.7 of the weight, with a small error."""

    centre = torch.tensor([-3.0, 1.0]).double()

    class Left(Normal):
        def log_prob(self, x):
            return super().log_prob(x - centre)

        def sample(self, size, *, seed):
            x = super().sample(size, seed=seed)[0] + centre
            return x, self.log_prob(x)

    z = SMC.fit(Left(0.7), Modes(), seed=0).log_partition
    assert float(z.value) == pytest.approx(2 + math.log(0.7), abs=0.1) and float(z.standard_error) < 0.05


def test_a_proposal_that_is_the_target_needs_one_rung():
    target = Normal(1.0)
    target.reduced_energy = lambda x: x.square().sum(1) / 2
    found = AIS.fit(Normal(1.0), target, seed=0)
    assert len(found.schedule.ladder) == 1
    assert float(found.log_partition.value) == pytest.approx(math.log(2 * math.pi))
    assert float(found.log_partition.standard_error) < 1e-9


def test_seed_batches_and_fixed_schedule():
    small = SequentialMonteCarlo(64, islands=4, trajectories=1, leapfrogs=2)
    first = small.fit(Normal(3.0), Modes(), seed=1)
    assert torch.equal(first.rows, small.fit(Normal(3.0), Modes(), seed=1).rows)
    assert not torch.equal(first.rows, small.fit(Normal(3.0), Modes(), seed=2).rows)
    batched = replace(small, batch=7).fit(Normal(3.0), Modes(), seed=1)
    torch.testing.assert_close(first.rows, batched.rows)
    again = small.fit(Normal(3.0), Modes(), seed=1, schedule=first.schedule)
    assert again.fixed and torch.equal(again.schedule.steps, first.schedule.steps)


def test_bad_input():
    with pytest.raises(DataError, match="particles"):
        SequentialMonteCarlo(100, islands=32)
    with pytest.raises(DataError, match="overlap"):
        AnnealedImportance(100, overlap=1.0)

    class Nowhere(Half):
        def reduced_energy(self, x):
            return torch.full_like(x[:, 0], math.inf)

    with pytest.raises(DataError, match="finite energies"):
        AIS.fit(Normal(1.0, 1), Nowhere(), seed=0)

    class Steep(Half):
        def reduced_energy(self, x):
            return 1e12 * x.square().sum(1)

    with pytest.raises(ConvergenceError, match="ladder"):
        AIS.fit(Normal(1.0, 1), Steep(), seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize("spec", [SMC, AIS], ids=["smc", "ais"])
def test_intervals_cover_and_the_mean_weight_is_unbiased(spec, adaptive):
    schedule = None if adaptive else spec.fit(Normal(3.0), Modes(), seed=0).schedule
    trials, hits, ratios = 200, 0, []
    for seed in range(1, trials + 1):
        z = spec.fit(Normal(3.0), Modes(), schedule=schedule, seed=seed).log_partition
        hits += bool(abs(float(z.value) - 2) < 1.96 * float(z.standard_error))
        ratios.append(math.exp(float(z.value) - 2))
    assert_calibrated(hits, trials, 0.95)
    ratio = torch.tensor(ratios)
    assert abs(float(ratio.mean()) - 1) < 3 * float(ratio.std()) / math.sqrt(trials)
