"""A population that chains renew: it stays at equilibrium, and a flow does not learn it by heart."""

import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.flows.counted import Counted
from bayesmol.flows.couplings import Couplings
from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.objectives import ForwardKL
from bayesmol.flows.optimisation import Optimisation
from bayesmol.flows.renewal import RenewedKL

SCALES = torch.tensor([1.0, 0.7, 1.4])
DENSITY = BoltzmannDensity(lambda x: (x / SCALES.to(x)).square().sum(1) / 2, 3)
CIRCULAR = torch.zeros(3, dtype=torch.bool)


def draws(size, seed):
    return SCALES * torch.randn(size, 3, generator=torch.Generator().manual_seed(seed))


def test_the_population_stays_at_equilibrium():
    objective = RenewedKL(optimisation=Optimisation(steps=1), moved=4000, own=0.0)
    source, data = torch.Generator().manual_seed(0), {"x": draws(4000, 1), "weights": torch.ones(4000)}
    before = data["x"]
    for turn in range(5):
        data = objective.refresh(None, Counted(DENSITY), data, turn, source)
    assert float((data["x"] != before).double().mean()) > 0.9
    torch.testing.assert_close(data["x"].std(0), SCALES, rtol=0.05, atol=0)


def test_a_biased_population_gets_there():
    objective = RenewedKL(optimisation=Optimisation(steps=1), moved=2000, own=0.0)
    source, data = torch.Generator().manual_seed(0), {"x": 0.2 * draws(2000, 1), "weights": torch.ones(2000)}
    for turn in range(10):
        data = objective.refresh(None, Counted(DENSITY), data, turn, source)
    torch.testing.assert_close(data["x"].std(0), SCALES, rtol=0.1, atol=0)


def test_few_samples_are_not_learned_by_heart():
    found = {}
    for kind, options in ((ForwardKL, {}), (RenewedKL, {"rounds": 60, "moved": 60, "own": 0.0})):
        flow = Couplings(layers=2, width=32, bins=8).build(CIRCULAR, seed=0)
        settings = Optimisation(steps=240, batch=64, rate=1e-2, checks=1)
        kind(optimisation=settings, held_out=0.0, **options).fit(flow, DENSITY, draws(60, 2), seed=0)
        found[kind] = -float(flow.log_prob(draws(5000, 3)).detach().mean())
    assert found[RenewedKL] < found[ForwardKL] - 0.3


def test_bad_settings():
    with pytest.raises(DataError, match="rounds"):
        RenewedKL(rounds=0)
    with pytest.raises(DataError, match="samples"):
        RenewedKL().fit(Couplings(layers=0).build(CIRCULAR, seed=0), DENSITY, seed=0)
