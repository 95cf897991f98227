"""From an energy to numbers with error bars, on a density whose answers are known."""

import pytest
import torch

from bayesmol.errors import DataError, ShapeError
from bayesmol.flows.autoregressive import Autoregressive
from bayesmol.flows.couplings import Couplings
from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.generator import BoltzmannGenerator
from bayesmol.flows.model_densities import double_well
from bayesmol.flows.objectives import ForwardKL, ReverseKL
from bayesmol.flows.optimisation import Optimisation
from bayesmol.flows.particle_densities import dw4
from bayesmol.flows.systems import Exploration
from bayesmol.flows.transport import ConstrainedMassTransport

EXPLORATION = Exploration(rungs=4, walkers=8, warmup=40, draws=20)
TRANSPORT = ConstrainedMassTransport(
    optimisation=Optimisation(steps=100, rate=1e-2, batch=128), rounds=20, draws=1000, held_out=0
)
BRIEF = ReverseKL(optimisation=Optimisation(steps=10, batch=64))
SMALL = BoltzmannGenerator(architecture=Autoregressive(width=16, bins=16), objective=TRANSPORT, exploration=EXPLORATION)


@pytest.fixture(scope="module")
def density():
    return double_well(tilt=0.5)


@pytest.fixture(scope="module")
def fitted(density):
    return SMALL.fit(density, seed=0)


def test_estimates_hold_the_exact_answers(density, fitted):
    draws, known = fitted.sample(20_000, seed=1), density.known()
    assert draws.verdict[0] in ("green", "amber"), draws.verdict
    energy = draws.log_partition
    assert abs(float(energy.value) - known.log_partition) < 4 * float(energy.standard_error)
    shares = draws.populations(density.states)
    error = (shares.value - torch.tensor(known.populations)).abs() / shares.standard_error
    assert float(error.max()) < 4


def test_draws_are_configurations_with_weights(density, fitted):
    draws = fitted.sample(5000, seed=2)
    assert draws.values.shape == (1, 5000, 2)
    x = draws.values[0]
    weights = -density.reduced_energy(x) - fitted.log_prob(x)
    torch.testing.assert_close(draws.log_weights[0], weights, rtol=0, atol=1e-6)
    assert torch.equal(draws.values, fitted.sample(5000, seed=2).values)


def test_the_cost_counts_the_exploration(fitted):
    assert fitted.trainings[0].energy_evaluations > 40 * 8 * 4 * 10


def test_an_ensemble_is_one_density(density):
    spec = BoltzmannGenerator(
        architecture=Autoregressive(width=8, bins=8), objective=BRIEF, exploration=EXPLORATION, members=2
    )
    generator = spec.fit(density, seed=0)
    assert len(generator.proposal.members) == 2
    x = torch.randn(5, 2).double()
    apart = torch.stack([member.log_prob(x) for member in generator.proposal.members])
    torch.testing.assert_close(generator.log_prob(x), apart.logsumexp(0) - torch.tensor(2.0).double().log())


def test_from_samples_the_last_tenth_is_held_out():
    known = BoltzmannDensity(lambda x: x.square().sum(1) / 2, 3)
    x = torch.randn(400, 3, generator=torch.Generator().manual_seed(3)).double()
    spec = BoltzmannGenerator(
        architecture=Couplings(layers=0), objective=ForwardKL(optimisation=Optimisation(steps=5, batch=64))
    )
    generator = spec.fit(known, x, seed=0)
    torch.testing.assert_close(generator.reference, x[360:])
    assert generator.trust["forward ESS"].level == "green"


def test_a_symmetric_density_gets_a_symmetric_flow():
    density = dw4()
    spec = BoltzmannGenerator(
        architecture=Couplings(layers=2, width=8, bins=4),
        objective=ForwardKL(optimisation=Optimisation(steps=3, batch=16)),
        exploration=Exploration(rungs=2, walkers=8, warmup=20, draws=20),
    )
    rows, _ = spec.exploration.fit(density, seed=1)
    generator = spec.fit(density, rows, seed=0)
    x, _ = generator.proposal.sample(20, seed=0)
    moved = x.gather(1, density.symmetry[7].expand_as(x)) * density.signs[7]
    torch.testing.assert_close(generator.log_prob(x), generator.log_prob(moved), rtol=0, atol=1e-9)


def test_another_temperature_is_judged_anew(density, fitted):
    hot = fitted.at(1.2)
    draws = hot.sample(20_000, seed=0)
    exact = density.at(1.2).known().log_partition
    assert draws.verdict[0] != "red", draws.verdict
    assert abs(float(draws.log_partition.value) - exact) < 4 * float(draws.log_partition.standard_error)
    assert hot.trust is not fitted.trust


def test_bad_input(density, fitted):
    with pytest.raises(ShapeError, match="samples"):
        SMALL.fit(density, torch.zeros(10, 3), seed=0)
    with pytest.raises(DataError, match="finite"):
        SMALL.fit(density, torch.full((10, 2), float("nan")), seed=0)
    with pytest.raises(DataError, match="size"):
        fitted.sample(0, seed=0)
    with pytest.raises(DataError, match="members"):
        BoltzmannGenerator(members=0)


def test_a_diatomic_molecule_learns_from_samples():
    def energy(x):
        return 5 * ((x[:, :3] - x[:, 3:]).norm(dim=1) - 1).square()

    species = torch.tensor([1, 1])
    known = BoltzmannDensity(energy, 6, 300.0, unit="eV", shape=(2, 3), space=3, species=species)
    apart = torch.nn.functional.normalize(torch.randn(300, 3, generator=torch.Generator().manual_seed(0)).double())
    x = torch.cat([apart, -apart], 1) / 2 + 0.01
    spec = BoltzmannGenerator(architecture=Couplings(layers=2, width=8, bins=4), minutes=0.02)
    generator = spec.fit(known, x - x.unflatten(1, (2, 3)).mean(1).repeat(1, 2), seed=0)
    assert generator.log_prob(x[:5] - x[:5].unflatten(1, (2, 3)).mean(1).repeat(1, 2)).isfinite().all()


def test_likelihood_without_samples_learns_from_chains(density):
    objective = ForwardKL(optimisation=Optimisation(steps=5, batch=64))
    spec = BoltzmannGenerator(architecture=Couplings(layers=0), objective=objective, exploration=EXPLORATION)
    assert spec.fit(density, seed=0).trainings[0].steps == 5
