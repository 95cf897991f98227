"""Single checks: their lights at numbers that are known."""

import math

import pytest
import torch

from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.discovery import Sample
from bayesmol.flows.trust_checks import Evidence, checks
from bayesmol.inference.checks import Check

DENSITY = BoltzmannDensity(lambda x: x.square().sum(1) / 2, 2)


def evidence(source, width=1.1, **changes):
    x = width * torch.randn(4000, 2, generator=source, dtype=torch.float64)
    energy = x.square().sum(1) / 2
    log_q = -energy / width**2 - 2 * math.log(width * math.sqrt(2 * math.pi))
    draws = Sample(x, energy, log_q, -energy - log_q)
    y = torch.randn(2000, 2, generator=source, dtype=torch.float64)
    square = y.square().sum(1) / 2
    forward = -square + square / width**2 + 2 * math.log(width * math.sqrt(2 * math.pi))
    known = {
        "draws": draws,
        "virial": x.square().sum(1),
        "forward": forward,
        "block": 1,
        "origin": "draws",
        "expedition": None,
        "outside": None,
        "members": (),
    }
    return Evidence(**(known | changes))


def lights(found):
    return {check.name: check.level for check in checks(found, DENSITY, seed=0)}


def test_a_good_proposal_is_green_but_for_what_was_not_looked_for(source):
    found = lights(evidence(source))
    assert found.pop("missing share") == "amber"
    assert set(found.values()) == {"green"}


def test_numbers_are_those_of_the_gaussian(source):
    found = {check.name: check for check in checks(evidence(source), DENSITY, seed=0)}
    exact = 1 / (1.21**2 / (2 * 1.21 - 1))
    assert abs(found["forward ESS"].value - exact) < 0.03
    assert abs(found["effective sample size"].value / 4000 - exact) < 0.03
    # Symmetric Kullback-Leibler divergence of two Gaussians in the plane.
    assert abs(found["ELBO–EUBO gap"].value - (1.21 + 1 / 1.21 - 2)) < 0.02


def test_clashes_without_weight_cost_the_lower_bound_their_share_and_no_more(source):
    sound = evidence(source)
    clashes = sound.draws.log_weights.clone()
    clashes[::2] = -1e6
    broken = sound._replace(draws=sound.draws._replace(log_weights=clashes))
    before, after = ({check.name: check for check in checks(one, DENSITY, seed=0)} for one in (sound, broken))
    assert after["ELBO–EUBO gap"].value - before["ELBO–EUBO gap"].value == pytest.approx(math.log(2), abs=0.02)
    assert "leaves out 2000 draws without weight" in after["ELBO–EUBO gap"].sentence


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("virial z", {"virial": torch.full((4000,), 3.0, dtype=torch.float64)}),
        ("missing share", {"outside": 0.02}),
        ("forward ESS", {"forward": torch.tensor([0.0] * 50 + [30.0], dtype=torch.float64)}),
        ("log Z by two ways, z", {"forward": torch.full((500,), 9.0, dtype=torch.float64)}),
    ],
)
def test_wrong_numbers_are_red(source, name, changes):
    assert lights(evidence(source, **changes))[name] == "red"


def test_a_narrow_proposal_has_a_tail(source):
    found = lights(evidence(source, 0.6))
    assert found["k-hat"] != "green"
    assert lights(evidence(source, 0.3))["effective sample size"] != "green"


def test_where_the_virial_theorem_fails_it_says_so(source):
    found = {check.name: check for check in checks(evidence(source, virial=None), DENSITY, seed=0)}
    assert "cannot be used" in found["virial z"].sentence
    assert found["virial z"].level == "green"
    assert found["virial z"].content()["value"] is None


def test_members(source):
    right = evidence(source).draws.log_weights
    assert lights(evidence(source, members=(right[:2000], right[2000:])))["spread of the ensemble"] == "green"
    assert lights(evidence(source, members=(right, right + 1)))["spread of the ensemble"] == "amber"


def test_content():
    check = Check("name", 1.0, math.inf, "green", "sentence")
    assert check.content() == {"name": "name", "value": 1.0, "limit": None, "level": "green", "sentence": "sentence"}
