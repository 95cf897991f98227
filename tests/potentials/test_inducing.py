"""Inducing structures: the exact process where all are inducing, and a stream whose order does not matter."""

from dataclasses import replace

import pytest
import torch

import bayesmol as bm
from bayesmol.data import Labelled
from bayesmol.errors import ApplicabilityError, DataError
from bayesmol.potentials import inducing_posterior
from bayesmol.potentials.gradient_gp import GradientGP
from bayesmol.potentials.inducing import InducingGP, learned, streamed

PROCESS = GradientGP(length_scale=10.0, energy_noise=1e-3, force_noise=0.03)


@pytest.fixture(scope="module")
def frames():
    return bm.data.load("rmd17/ethanol/train")[:40]


@pytest.fixture(scope="module")
def exact(frames):
    return PROCESS.fit(frames[:12])


def same(first, second, *, rtol=1e-4):
    """Means and standard deviations agree relative to the size of what is predicted."""
    for name in ("energy", "forces"):
        for moment in ("mean", "stddev"):
            got, want = (getattr(getattr(p, name), moment) for p in (second, first))
            scale = float(want.abs().mean())
            torch.testing.assert_close(got, want, rtol=0, atol=rtol * scale)


def test_all_inducing_is_the_exact_process(frames, exact):
    found = streamed(exact, frames[:12])
    wanted, got = (model.predict(frames[20:30], covariance=True) for model in (exact, found))
    same(wanted, got)
    size = float(wanted.energy.covariance.abs().max())
    torch.testing.assert_close(got.energy.covariance, wanted.energy.covariance, rtol=0, atol=1e-4 * size)
    for first, second in zip(got.forces.covariance, wanted.forces.covariance, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=1e-4 * float(second.abs().max()))


def test_missing_labels_and_own_errors_count_as_in_the_exact_process(frames):
    part = frames[:10]
    mask = torch.arange(10) % 3 != 0
    forces = part.forces * mask[part.structures.structure_index, None]
    errors = 0.01 * (1 + torch.arange(90, dtype=torch.float64)).sqrt()[:, None].expand(-1, 3)
    part = replace(part, forces=forces, has_forces=mask, force_errors=errors)
    exact = PROCESS.fit(part)
    same(exact.predict(frames[20:24]), streamed(exact, part).predict(frames[20:24]))


def test_portions_and_order_do_not_matter(frames, exact, monkeypatch):
    at_once = streamed(exact, frames)
    monkeypatch.setattr(inducing_posterior, "_NUMBERS", 1)
    backwards = streamed(exact, frames[list(range(39, -1, -1))])
    assert backwards.portion == 1
    same(at_once.predict(frames[:5]), backwards.predict(frames[:5]))
    first = streamed(exact, frames[:25]).update(frames[25:])
    same(at_once.predict(frames[:5]), first.predict(frames[:5]))
    assert torch.equal(first.trained(frames.structures), torch.ones(40, dtype=torch.bool))


def test_more_labels_help_and_variances_shrink(frames, exact):
    test = bm.data.load("rmd17/ethanol/test")[:30]
    few, many = streamed(exact, frames[:12]), streamed(exact, frames)
    before, after = few.predict(test), many.predict(test)
    error = [float((p.forces.mean - test.forces).abs().mean()) for p in (before, after)]
    assert error[1] < error[0]
    assert bool((after.forces.epistemic.variance < before.forces.epistemic.variance + 1e-9).all())


def test_the_prior_comes_back_far_away(frames, exact):
    """Where the inducing structures say nothing, the variance is that of the prior and not zero."""
    found, far = streamed(exact, frames), frames[:1].structures
    far = replace(far, positions=far.positions * 1.6)
    wanted = exact.predict(far).forces.epistemic.stddev
    assert float(found.predict(far).forces.epistemic.stddev.mean() / wanted.mean()) > 0.9


def test_contract(frames, exact):
    found = streamed(exact, frames)
    bm.testing.check_potential(found, frames[30:32], extensive=False, atol=1e-4)
    test = frames[30:33]
    joint = torch.cat(found.force_factor(test))
    for block, want in zip(
        found.force_factor(test), found.predict(test, covariance=True).forces.covariance, strict=True
    ):
        noise = found.noise_force**2 * torch.eye(27, dtype=torch.float64)
        torch.testing.assert_close(block @ block.mT + noise, want, rtol=0, atol=1e-6)
    assert joint.shape[0] == 81
    features = found.features(test)
    assert features.shape == (3, found.root.shape[1] + 1)
    prediction = found.predict(test)
    mean = features @ found.stream.posterior.mean + exact.training.energies.mean()
    torch.testing.assert_close(prediction.energy.mean, mean)
    torch.testing.assert_close(found.strangeness(test), found.strangeness(test, prediction))
    assert found.calculator().model is found
    with pytest.raises(ApplicabilityError, match="calibration"):
        found.leave_one_out()


def test_fit_and_certify(frames):
    found = InducingGP(PROCESS, inducing=10).fit(frames[:25], seed=3)
    assert len(found.training) == 10 and found.noise_force == 0.03
    assert bool(found.trained(frames[:25].structures).all())
    calibration = Labelled.concatenate([frames[25:], bm.data.load("rmd17/ethanol/test")[:40]])
    domain = bm.applicability.Domain(level=0.2)
    certified = bm.certify(found, calibration, level=0.8, domain=domain)
    assert certified.predict(frames[30:31]).inside is not None
    with pytest.raises(DataError, match="not used for training"):
        bm.certify(found, frames[:25], domain=domain)
    assert torch.equal(InducingGP(PROCESS, inducing=10).fit(frames[:25], seed=3).root, found.root)
    with pytest.raises(DataError, match="inducing"):
        InducingGP(inducing=1)
    assert learned(found, frames[25:]).seen.numel() == 10 + 40


def test_certified_intervals_cover(apart, assert_covered):
    assert_covered(InducingGP(PROCESS, inducing=10).fit(apart[0], seed=3))
