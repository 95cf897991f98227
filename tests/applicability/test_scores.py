"""Every named score obeys the contract, broken ones are caught, and the scores of other families fit into it."""

import json
import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from bayesmol.applicability import CalibratedDomain, Domain
from bayesmol.applicability.scores import FITTED, SPECIFICATIONS, Specification, check_score, identity
from bayesmol.errors import DataError, ShapeError


@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_every_named_score_obeys_the_contract_and_survives_a_domain(name, normal):
    spec, features = SPECIFICATIONS[name], normal(400, 4)
    assert isinstance(spec, Specification)
    check_score(spec, features)
    check_score(spec.fit(features), normal(20, 4))
    assert type(spec.fit(features)) is FITTED[name]
    assert tuple(spec.fit(features)(features[:0]).shape) == (0,)
    domain = Domain(name, level=0.05).fit(features).calibrate(normal(400, 4))
    new = normal(300, 4)
    assert not bool(domain.assess(new + 30).inside.any())
    assert float(domain.assess(new).inside.double().mean()) > 0.88
    header, arrays = domain.state()
    again = CalibratedDomain.from_state(json.loads(json.dumps(header)), arrays)
    assert torch.equal(again.assess(new).score, domain.assess(new).score)


@pytest.mark.parametrize("name", SPECIFICATIONS)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator")
def test_scores_on_an_accelerator_are_those_on_the_cpu(name, normal):
    features, new = normal(500, 8), normal(700, 8)
    there = SPECIFICATIONS[name].fit(features.cuda())
    check_score(there, new.cuda())
    assert torch.allclose(there(new.cuda()).cpu(), SPECIFICATIONS[name].fit(features)(new), rtol=1e-6)


def test_identity(normal):
    assert torch.equal(identity(torch.arange(3.0)), torch.arange(3.0))
    check_score(identity, normal(10))
    with pytest.raises(ShapeError):
        identity(torch.ones(3, 1))


def plain(features):
    return features.square().sum(1)


def positional(features):
    return plain(features) + torch.arange(len(features)).to(features)


def relative(features):
    return plain(features) / plain(features).max()


def destructive(features):
    features.square_()
    return features.sum(1)


def forgiving(features):
    return plain(features.nan_to_num())


def restless(features):
    return plain(features) + 1e-3 * torch.rand(len(features), dtype=features.dtype)


@dataclass(frozen=True)
class Drifting:
    """Fits something else every time."""

    def fit(self, features):
        centers = features[torch.randperm(len(features))[:1]] + torch.rand(1)
        return lambda rows: plain(rows - centers)


@pytest.mark.parametrize(
    ("score", "law"),
    [
        (lambda features: features, "one number a row"),
        (lambda features: plain(features).float(), "precision"),
        (lambda features: plain(features) / 0, "finite"),
        (positional, "place"),
        (relative, "scored with it"),
        (destructive, "as they were"),
        (forgiving, "NaN"),
        (restless, "same scores"),
        (Drifting(), "same fit"),
    ],
)
def test_a_broken_score_is_caught(score, law, normal):
    with pytest.raises(AssertionError, match=law):
        check_score(score, normal(12, 3))
    check_score(plain, normal(12, 3))


@dataclass(frozen=True, eq=False)
class Remembering:
    """A score for files that keeps more than its fields."""

    center: Tensor

    def __call__(self, features):
        vars(self)["last"] = features
        return plain(features - self.center)


def test_a_score_that_files_cannot_hold_is_caught(normal, monkeypatch):
    monkeypatch.setitem(FITTED, "remembering", Remembering)
    with pytest.raises(AssertionError, match="only fields"):
        check_score(Remembering(normal(3)), normal(12, 3))


# Scores of families that are not here: each is a function of its own rows, and needs no more than the contract.


@dataclass(frozen=True)
class WeightTail:
    """Flow: distance of the log-importance-weight of a draw from its median, rows are log-weights."""

    def fit(self, log_weights):
        median = log_weights.median()
        return lambda rows: (rows - median).abs()


@dataclass(frozen=True)
class LocalEnergy:
    """Variational Monte Carlo: robust z-score of the local energy of a walker, rows are local energies in hartree."""

    def fit(self, energies):
        median = energies.median()
        width = 1.4826 * (energies - median).abs().median()
        return lambda rows: (rows - median).abs() / width


@dataclass(frozen=True)
class KoopmanResidual:
    """Koopman model: ‖ψ(x_{t+τ}) − K ψ(x_t)‖, rows are pairs of features, shape (2, functions)."""

    def fit(self, pairs):
        transfer = torch.linalg.lstsq(pairs[:, 0], pairs[:, 1]).solution
        return lambda rows: (rows[:, 1] - rows[:, 0] @ transfer).norm(dim=1)


def autoregressive(normal, count, spread=0.1):
    present = normal(count, 2)
    turn = torch.tensor([[0.8, 0.3], [-0.3, 0.8]], dtype=torch.float64)
    return torch.stack([present, present @ turn + spread * normal(count, 2)], 1)


@pytest.mark.parametrize(
    ("spec", "rows", "strange"),
    [
        (WeightTail(), lambda normal, count: 3 + normal(count), lambda normal: torch.tensor([25.0, -30.0]).double()),
        (
            LocalEnergy(),
            lambda normal, count: -2.9 + 0.01 * normal(count),
            lambda normal: torch.tensor([-40.0, 3]).double(),
        ),
        (KoopmanResidual(), autoregressive, lambda normal: autoregressive(normal, 3, spread=30.0)),
    ],
    ids=["importance weight", "local energy", "Koopman residual"],
)
def test_scores_of_other_families_fit_the_contract_and_the_domain(spec, rows, strange, normal):
    check_score(spec, rows(normal, 50))
    fitted = spec.fit(rows(normal, 400))
    domain = Domain(fitted, level=0.05).calibrate(rows(normal, 400))
    inside = domain.assess(rows(normal, 1000)).inside
    assert float(inside.double().mean()) > 0.9
    verdict = domain.assess(strange(normal))
    assert not bool(verdict.inside.any())
    assert torch.allclose(verdict.p_value, torch.tensor(1 / 401, dtype=torch.float64))
    with pytest.raises(DataError, match="NaN"):
        domain.assess(rows(normal, 4) * math.nan)
    direct = Domain(spec, level=0.05).fit(rows(normal, 400)).calibrate(rows(normal, 400))
    assert not bool(direct.assess(strange(normal)).inside.any())
