import math

import pytest
import torch

from bayesmol.acquisition.fidelity import Autoregressive, value_per_cost
from bayesmol.errors import DataError, ShapeError

METHODS = Autoregressive(ratio=0.8, noise_low=0.1, noise_high=0.05, cost_low=1.0, cost_high=20.0)


def test_factors_have_the_covariances_of_kennedy_and_ohagan(normal):
    f, d = normal(4, 6), normal(4, 3)
    low, high = METHODS.factors(f, d)
    torch.testing.assert_close(low @ low.T, f @ f.T)
    torch.testing.assert_close(high @ high.T, 0.64 * f @ f.T + d @ d.T)
    torch.testing.assert_close(low @ high.T, 0.8 * f @ f.T)


def test_gains_by_conditioning_the_joint_gaussian(normal):
    f, d, tf, td = normal(2, 3, 5), normal(2, 3, 4), normal(3, 3, 5), normal(3, 3, 4)
    found = METHODS.gains(list(f), list(d), tf, td)
    told = METHODS.gains(list(f), list(d), tf, td, function="predictive_information")
    _, aim = METHODS.factors(tf.flatten(0, 1), td.flatten(0, 1))
    for structure in range(2):
        rows = METHODS.factors(f[structure], d[structure])
        for column, (own, noise, cost) in enumerate(zip(rows, (0.1, 0.05), (1.0, 20.0), strict=True)):
            inverse = torch.linalg.inv(own @ own.T + noise**2 * torch.eye(3).double())
            taken = aim @ own.T @ inverse @ own @ aim.T
            assert float(found[structure, column]) == pytest.approx(float(taken.trace()) / 3 / cost)
            before, eye = aim @ aim.T, 0.05**2 * torch.eye(3).double()
            blocks = [slice(3 * t, 3 * t + 3) for t in range(3)]
            logs = [torch.logdet(before[b, b] + eye) - torch.logdet((before - taken)[b, b] + eye) for b in blocks]
            assert float(told[structure, column]) == pytest.approx(0.5 * float(sum(logs)) / 3 / cost)


def test_cheap_labels_are_bought_while_the_methods_agree():
    one, none = torch.ones(1, 1).double(), torch.zeros(1, 1).double()
    target = one.unsqueeze(0)
    for discrepancy, cheap in ((0.1, True), (10.0, False)):
        methods = Autoregressive(1.0, 0.05, 0.05, 1.0, 20.0)
        gains = methods.gains([one], [discrepancy * one], target, discrepancy * target)[0]
        assert bool(gains[0] > gains[1]) is cheap
    alike = Autoregressive(1.0, 0.05, 0.05, 1.0, 20.0).gains([one], [none], target, none.unsqueeze(0))[0]
    assert float(alike[0] / alike[1]) == pytest.approx(20.0)
    scale = Autoregressive(1.0, 0.5, 0.5, 1.0, 1.0)
    nats = scale.gains([one], [none], target, none.unsqueeze(0), function="predictive_information")
    left = 1 - 1 / 1.25
    assert float(nats[0, 0]) == pytest.approx(0.5 * math.log(1.25 / (left + 0.25)))


def test_value_per_cost():
    values = torch.tensor([[1.0, 4.0], [2.0, 2.0]]).double()
    assert value_per_cost(values, torch.tensor([1.0, 4.0]).double()).tolist() == [[1.0, 1.0], [2.0, 0.5]]
    assert value_per_cost(values, 2 * torch.ones(2, 2).double()).tolist() == [[0.5, 2.0], [1.0, 1.0]]
    with pytest.raises(DataError, match="positive finite"):
        value_per_cost(values, torch.tensor([1.0, 0.0]).double())
    with pytest.raises(ShapeError, match="costs"):
        value_per_cost(values, torch.ones(3).double())


def test_bad_input(normal):
    with pytest.raises(DataError, match="cost_low"):
        Autoregressive(1.0, 0.1, 0.1, 0.0, 1.0)
    with pytest.raises(ShapeError, match="discrepancy"):
        METHODS.factors(normal(2, 3), normal(3, 3))
    with pytest.raises(DataError, match="function"):
        METHODS.gains([], [], normal(1, 1, 2), normal(1, 1, 2), function="variance")
