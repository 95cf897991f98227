"""Networks of couplings: periodic features, zero at first, masks that keep the order, seeds."""

import math

import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.flows.conditioners import Conditioner, Features, reproducible

CIRCULAR = torch.tensor([True, False, True])


def test_features_are_periodic_where_the_row_is():
    features, x = Features(CIRCULAR), torch.randn(5, 3)
    assert features(x).shape == (5, 5)
    torch.testing.assert_close(features(x + 2 * math.pi * CIRCULAR), features(x), rtol=0, atol=1e-5)
    assert features.sources.tolist() == [0, 2, 0, 2, 1]


def test_context_comes_last_and_must_fit():
    features = Features(CIRCULAR, context=2)
    context = torch.rand(5, 2)
    torch.testing.assert_close(features(torch.zeros(5, 3), context)[:, -2:], context)
    assert features.sources.tolist()[-2:] == [-1, -1]
    for wrong in (None, torch.rand(5, 1)):
        with pytest.raises(DataError, match="context"):
            features(torch.zeros(5, 3), wrong)


def test_a_new_network_gives_zero():
    assert not Conditioner(4, 6, 8)(torch.randn(7, 4)).any()
    assert Conditioner(4, 6, 8)(torch.randn(7, 4)).shape == (6, 7)


def test_it_needs_no_inputs():
    network = Conditioner(0, 3, 8)
    torch.nn.init.ones_(network.last.bias)
    torch.testing.assert_close(network(torch.zeros(2, 0)), torch.ones(3, 2))


def test_masks_let_an_output_see_lower_degrees_only():
    inputs, outputs = torch.tensor([1, 2, 3]), torch.tensor([1, 2, 3, 4])
    network = Conditioner(3, 4, 32, 2, degrees=(inputs, outputs))
    torch.nn.init.normal_(network.last.weight)
    x = torch.randn(1, 3)
    jacobian = torch.autograd.functional.jacobian(lambda row: network(row)[:, 0], x)[:, 0]
    allowed = outputs[:, None] > inputs
    assert not jacobian[~allowed].any()
    assert jacobian[allowed].abs().min() > 0


def test_some_outputs_are_those_of_all():
    network, x = Conditioner(3, 6, 8), torch.randn(4, 3)
    torch.nn.init.normal_(network.last.weight)
    part = network.parameters_of(network.hidden(x), slice(2, 5))
    torch.testing.assert_close(part, network(x)[2:5])


def test_the_seed_decides_and_the_global_stream_stays():
    before = torch.random.get_rng_state()
    made = []
    for seed in (1, 1, 2):
        with reproducible(seed):
            made.append(Conditioner(2, 2, 4).first.weight)
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_sizes_are_positive():
    with pytest.raises(DataError, match="width"):
        Conditioner(2, 2, 0)
