"""Annealed bootstrap: the density it aims at, its buffer, and a Gaussian that is reached."""

import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.flows.bootstrap import AnnealedBootstrap
from bayesmol.flows.counted import Counted
from bayesmol.flows.optimisation import Optimisation
from bayesmol.inference.random import generator


def test_paths_end_at_the_square_over_the_flow(affine, gaussian):
    """q = N(0, 1.2²), p as given: p²/q is a Gaussian with precision 2/s² − 1/1.2²."""
    flow = affine([0.0, 0.0], [0.1823, 0.1823])
    data = AnnealedBootstrap(particles=4096, buffer=4096, overlap=0.9).refresh(
        flow, Counted(gaussian), {}, 0, generator(0)
    )
    weights = data["log_weights"].softmax(0)
    mean = weights @ data["x"].double()
    precision = 2 / gaussian.scale**2 - 1 / 1.2**2
    torch.testing.assert_close(mean, 2 * gaussian.mean / gaussian.scale**2 / precision, atol=0.08, rtol=0)
    torch.testing.assert_close(data["log_q"], flow.log_prob(data["x"]).detach().double())


def test_buffer_keeps_the_newest(affine, gaussian):
    flow, spec = affine([0.0, 0.0], [0.5, 0.5]), AnnealedBootstrap(particles=16, buffer=40)
    target, data, source = Counted(gaussian), {}, generator(0)
    for turn in range(3):
        before, data = data, spec.refresh(flow, target, data, turn, source)
    assert len(data["x"]) == 40 and torch.equal(data["x"][:24], before["x"][-24:])


def test_weights_in_the_buffer_follow_the_flow(affine, gaussian):
    """After a move of the flow g has lost what q has gained."""
    flow, moved = affine([0.0, 0.0], [0.5, 0.5]), affine([0.1, 0.0], [0.5, 0.4])
    spec = AnnealedBootstrap(Optimisation(batch=4000), particles=16, buffer=40)
    data = spec.refresh(flow, Counted(gaussian), {}, 0, generator(0))
    before = {name: value.clone() for name, value in data.items()}
    spec.loss(moved, Counted(gaussian), data, generator(1))
    gained = moved.log_prob(data["x"]).detach().double() - before["log_q"]
    used = data["log_weights"] != before["log_weights"]
    assert int(used.sum()) >= 8
    torch.testing.assert_close((before["log_weights"] - gained)[used], data["log_weights"][used])


def test_gaussian_is_reached(affine, gaussian):
    flow = affine([0.0, 0.0], [0.5, 0.5])
    spec = AnnealedBootstrap(Optimisation(steps=300, batch=128, rate=0.05), rounds=10, particles=128)
    training = spec.fit(flow, gaussian, gaussian.sample(500), seed=0)
    assert training.forward_ess[-1][1] > 0.97


def test_bad_settings():
    with pytest.raises(DataError, match="buffer"):
        AnnealedBootstrap(particles=100, buffer=10)
