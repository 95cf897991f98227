"""Mixing weights are learned from left-out structures, and only from the frames meant for it."""

from dataclasses import replace

import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.inference.conjugate import log_evidence
from bayesmol.potentials import MixingSchedule
from bayesmol.potentials.ace_learning import initial_model, learned_mixing
from bayesmol.potentials.ace_rows import FORCE, Model, all_rows
from bayesmol.potentials.ace_scales import DualJudge
from bayesmol.representation.design import Representation
from bayesmol.representation.radial import RadialBasis

close = torch.testing.assert_close


@pytest.fixture(scope="module")
def data(ethanol):
    return ethanol[1][:20]


@pytest.fixture(scope="module")
def untrained(ethanol):
    representation = Representation.random((1, 6, 8), RadialBasis(size=5), (4, 4, 2), (2, 2, 2), seed=0)
    zeros = torch.zeros(int(representation.families.max()) + 1, dtype=torch.float64)
    energy = float(ethanol[0].energies.mean()) / 9
    return Model(representation, zeros, zeros[:5], torch.full((3,), energy, dtype=torch.float64))


@pytest.fixture(scope="module")
def start(untrained, data):
    return initial_model(untrained, data, seed=0)


def test_each_body_order_starts_with_a_like_share(start, data):
    rows = all_rows(start, data)
    forces = rows.kind == FORCE
    power = (rows.design[forces] * start.scales()).square().mean(0)
    orders = start.representation.orders
    shares = torch.stack([power[orders == order].sum() for order in orders.unique()])
    want = 2.5 * rows.targets[forces].square().mean()
    close(shares, want.expand_as(shares), rtol=1e-6, atol=0.0)


def test_first_guess_of_the_noise(start, data):
    rows = all_rows(start, data)
    spread = rows.targets[rows.kind == FORCE].square().mean().sqrt()
    close(start.log_noise.exp(), 0.025 * spread * torch.tensor([0.06, 1.0, 1.0, 1.0, 1.0], dtype=torch.float64))


def test_initial_model_from_energies_alone(untrained, data):
    found = initial_model(untrained, replace(data, forces=None, has_forces=None), seed=0)
    assert bool(found.log_prior.isfinite().all()) and bool(found.log_noise.isfinite().all())


def test_too_little_to_learn_from(start, data):
    for part, schedule in ((data[:7], MixingSchedule()), (data, MixingSchedule(steps=0))):
        model, unseen = learned_mixing(start, part, schedule, seed=0)
        assert model is start and torch.equal(unseen, torch.arange(len(part)))


def test_learning_predicts_left_out_structures_better(start, data):
    before = [part.clone() for part in start.representation.mixing]
    model, unseen = learned_mixing(start, data, MixingSchedule(steps=12, checks=2), seed=0)
    assert len(unseen) == 4 and len(unseen.unique()) == 4
    assert all(torch.equal(*pair) for pair in zip(before, start.representation.mixing, strict=True))
    assert not any(part.requires_grad for part in model.representation.mixing)
    scores = [
        float(DualJudge.of(m, all_rows(m, data), unseen).left_out(0.0, 0.0).score[unseen].sum()) for m in (start, model)
    ]
    assert scores[1] < scores[0]


def test_mixing_does_not_depend_on_the_labels_of_unseen_frames_within_a_check(start, data):
    schedule = MixingSchedule(steps=2, checks=1)
    model, unseen = learned_mixing(start, data, schedule, seed=3)
    atoms = torch.isin(data.structures.structure_index, unseen)
    changed = replace(data, forces=torch.where(atoms[:, None], 0.9 * data.forces, data.forces))
    other, same = learned_mixing(start, changed, schedule, seed=3)
    assert torch.equal(unseen, same)
    for got, want in zip(other.representation.mixing, model.representation.mixing, strict=True):
        assert torch.equal(got, want)


def test_noise_of_elements_is_learned(untrained, data):
    """Forces on oxygen with much noise: its misfit grows past the others, and their mean over the labels stays."""
    oxygen = data.structures.species == 8
    source = torch.Generator().manual_seed(3)
    spoilt = data.forces + 0.5 * oxygen[:, None] * torch.randn(data.forces.shape, generator=source).double()
    noisy = replace(data, forces=spoilt)
    start = initial_model(untrained, noisy, seed=0)
    found, _ = learned_mixing(start, noisy, MixingSchedule(steps=12, prior_rate=0.2), seed=0)
    moved = (found.log_noise - start.log_noise)[FORCE:]
    share = torch.tensor([6.0, 2.0, 1.0], dtype=torch.float64) / 9
    assert float(moved[2]) > 0.2 + float(moved[:2].max()) and abs(float(share @ moved)) < 1e-9
    assert torch.equal(found.log_noise[:FORCE], start.log_noise[:FORCE])


def test_evidence_as_the_objective(start, data):
    """The other objective learns other weights and raises the evidence of the frames it sees."""
    learned = {}
    for objective in ("leave-one-out", "evidence"):
        schedule = MixingSchedule(steps=8, checks=1, objective=objective)
        learned[objective], _ = learned_mixing(start, data, schedule, seed=0)
    first, second = (model.representation.mixing[0] for model in learned.values())
    assert not torch.allclose(first, second)

    def evidence(model):
        rows = all_rows(model, data)
        white = rows.whitened(model)
        return float(log_evidence(white @ white.T + torch.diag(rows.noise(model)), rows.targets))

    assert evidence(learned["evidence"]) > evidence(start) + 10
    with pytest.raises(DataError, match="leave-one-out, evidence"):
        MixingSchedule(objective="likelihood")
