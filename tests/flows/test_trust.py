"""The report is green for a right proposal, red for one that misses a mode, and says why."""

import json
import math
from dataclasses import replace

import pytest
import torch

from bayesmol.errors import ShapeError
from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.discovery import Discovery
from bayesmol.flows.model_densities import double_well, gaussian_mixture
from bayesmol.flows.trust import diagnose
from bayesmol.testing import assert_calibrated

QUICK = Discovery(walkers=32, trajectories=14, leapfrogs=5)
MEANS = torch.tensor([[0.0, 0.0], [9.0, 0.0]], dtype=torch.float64)
SHARES = torch.tensor([0.95, 0.05], dtype=torch.float64)


class Gaussians:
    """Mixture of Gaussians with one covariance."""

    dimension = 2

    def __init__(self, means=MEANS, weights=SHARES, covariance=None):
        covariance = torch.eye(2, dtype=torch.float64) if covariance is None else covariance
        self.weights, self.factor = weights / weights.sum(), torch.linalg.cholesky(covariance)
        self.law = torch.distributions.MultivariateNormal(means, covariance)

    def log_prob(self, x):
        return (self.law.log_prob(x.unsqueeze(1)) + self.weights.log()).logsumexp(1)

    def sample(self, size, *, seed):
        source = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
        which = torch.multinomial(self.weights, size, replacement=True, generator=source)
        noise = torch.randn(size, 2, generator=source, dtype=torch.float64)
        x = self.law.loc[which] + noise @ self.factor.mT
        return x, self.log_prob(x)


def density():
    return gaussian_mixture(MEANS, torch.ones(2, dtype=torch.float64), SHARES)


def report(proposal, target=None, seed=0, **options):
    options = {"draws": 2000, "discovery": QUICK} | options
    return diagnose(proposal, target or density(), seed=seed, **options)


def diagonal(*variances):
    return torch.diag(torch.tensor(variances, dtype=torch.float64))


def turned():
    rotation = torch.tensor([[1.0, -1.0], [1.0, 1.0]], dtype=torch.float64) / math.sqrt(2)
    return rotation @ diagonal(3.0, 0.2) @ rotation.mT


@pytest.fixture(scope="module")
def right():
    return report(Gaussians())


@pytest.fixture(scope="module")
def dropped():
    return report(Gaussians(MEANS[:1], SHARES[:1]))


def test_right_is_green(right):
    assert right.verdict == "green"
    assert right.reasons == ()
    assert abs(right["virial z"].value) < 4


def test_a_dropped_mode_is_red_although_the_draws_look_perfect(dropped):
    assert dropped.verdict == "red"
    assert dropped["effective sample size"].level == "green"
    assert dropped["missing share"].level == "red"
    assert any("misses" in reason for reason in dropped.reasons)


@pytest.mark.parametrize(
    "proposal",
    [
        Gaussians(covariance=diagonal(0.36, 0.36)),
        Gaussians(MEANS + torch.tensor([1.5, 0.0], dtype=torch.float64)),
        Gaussians(covariance=turned()),
        Gaussians(MEANS, torch.tensor([0.9995, 0.0005], dtype=torch.float64)),
    ],
    ids=["narrow", "wrong mean", "rotated", "starved"],
)
def test_what_is_wrong_is_not_green(proposal):
    assert report(proposal).verdict != "green"


def test_it_prints_and_becomes_json_and_a_plot(dropped):
    text = str(dropped)
    assert text.startswith("red: from 2000 draws")
    assert "missing share" in text
    content = json.loads(json.dumps(dropped.content(), allow_nan=False))
    assert content["verdict"] == "red"
    assert {check["name"] for check in content["checks"]} >= {"k-hat", "virial z", "forward ESS"}
    assert len(dropped.plot().axes) == 2
    with pytest.raises(KeyError, match="k-hat"):
        dropped["nothing"]


def test_the_same_seed_gives_the_same_report(right):
    assert str(report(Gaussians())) == str(right)


def test_a_reference_tells_what_chains_need_not_find(source):
    wide = replace(density(), start=None)
    reference, _ = Gaussians().sample(400, seed=source)
    found = report(Gaussians(MEANS[:1], SHARES[:1]), wide, reference=reference)
    assert found.verdict == "red"
    assert "reference" in found["forward ESS"].sentence
    assert report(Gaussians(), wide, reference=reference).verdict == "green"
    with pytest.raises(ShapeError, match="reference"):
        report(Gaussians(), reference=reference[:, :1])


def test_without_gradients_it_is_amber_at_best():
    model = density()
    blind = BoltzmannDensity(lambda x: model.energy(x).detach(), 2)
    found = report(Gaussians(), blind)
    assert found.verdict == "amber"
    assert "gradient" in found.reasons[0]
    reference, _ = Gaussians().sample(400, seed=1)
    assert report(Gaussians(MEANS[:1], SHARES[:1]), blind, reference=reference).verdict == "red"


def test_walls_switch_the_virial_off():
    model = density()
    walled = replace(model, energy=lambda x: torch.where(x[:, 0] > -0.5, model.energy(x), torch.inf))
    assert "cannot be used" in report(Gaussians(), walled)["virial z"].sentence


def test_members_that_disagree_are_seen():
    class Ensemble(Gaussians):
        members = (Gaussians(), Gaussians(MEANS[:1], SHARES[:1]), Gaussians(MEANS[1:], SHARES[1:]))

    assert report(Ensemble())["spread of the ensemble"].level == "amber"


@pytest.mark.slow
def test_power_and_false_alarms():
    """A dropped 5 % mode is found with power ≥ 95 % at n = 2000; a right proposal is green in ≥ 95 %."""
    repeats, lost, green = 30, 0, 0
    for seed in range(repeats):
        lost += report(Gaussians(MEANS[:1], SHARES[:1]), seed=seed).verdict == "red"
        green += report(Gaussians(), seed=1000 + seed).verdict == "green"
    assert lost == repeats
    assert green >= 0.95 * repeats


@pytest.mark.slow
def test_the_virial_is_calibrated():
    hits = sum(abs(report(Gaussians(), seed=seed)["virial z"].value) < 1.96 for seed in range(40))
    assert_calibrated(hits, 40, 0.95)


def test_the_double_well_without_its_right_well():
    low = torch.tensor([[-1.47, 0.0]], dtype=torch.float64)
    found = report(Gaussians(low, SHARES[:1], diagonal(0.08, 1.2)), double_well())
    assert found.verdict == "red"
