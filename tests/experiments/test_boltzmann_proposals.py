"""Proposals of the study of coverage: normalised, and with the faults that they claim."""

import math

import pytest
import torch

from bayesmol.inference.importance import effective_size


@pytest.fixture
def proposals(study):
    return study("boltzmann_proposals")


def test_a_table_has_the_density_of_its_draws(proposals):
    table = proposals.Table(lambda x: -x.square().sum(1) / 2, ((-6.0, 6.0), (-6.0, 6.0)), 120)
    x, log_q = table.sample(4000, seed=0)
    torch.testing.assert_close(table.log_prob(x), log_q)
    assert abs(float(x.square().mean()) - 1) < 0.1
    assert abs(float(log_q.mean()) + math.log(2 * math.pi) + 1) < 0.1
    assert table.log_prob(torch.tensor([[7.0, 0.0]]).double()).item() == -math.inf


@pytest.mark.parametrize("name", ["double_well", "mueller_brown", "many_well", "gaussian_mixture", "harmonic"])
def test_the_right_proposal_has_the_right_answers(proposals, name):
    case = proposals.CASES[name]()
    x, log_q = case.proposal("right").sample(4000, seed=0)
    log_weights = -case.density.reduced_energy(x) - log_q
    assert effective_size(log_weights).fraction > 0.98
    assert abs(float(log_weights.logsumexp(0)) - math.log(4000) - case.truths["log_partition"]) < 0.01
    energy = case.density.reduced_energy(x)
    assert abs(float(energy.mean()) - case.truths["energy"]) < 5 * float(energy.std()) / 4000**0.5
    assert abs(float(x[:, 0].mean()) - case.truths["position"]) < 5 * float(x[:, 0].std()) / 4000**0.5
    if case.pair is not None:
        first, second = ((case.density.states(x) == k).double().mean() for k in case.pair)
        assert abs(float((first / second).log()) - case.truths["free_energy_difference"]) < 0.5


@pytest.mark.parametrize("name", ["double_well", "many_well", "gaussian_mixture"])
def test_kinds_are_wrong_in_their_way(proposals, name):
    case = proposals.CASES[name]()
    deviation = {}
    for kind in proposals.KINDS:
        proposal = case.proposal(kind)
        x, log_q = proposal.sample(2000, seed=0)
        torch.testing.assert_close(proposal.log_prob(x), log_q, rtol=1e-6, atol=1e-6)
        deviation[kind] = float(x[:, 1].std())
    assert deviation["narrow_06"] < deviation["narrow_08"] < deviation["right"] < deviation["wide"]


def test_a_single_mode_cannot_be_missed(proposals):
    assert proposals.CASES["harmonic"]().proposal("missing") is None
