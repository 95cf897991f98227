import itertools
import math

import pytest
import torch

from bayesmol.errors import ConvergenceError, DataError, ShapeError
from bayesmol.inference.conjugate import LinearPosterior, posterior_from_rows
from bayesmol.inference.streaming import Stream, inducing_features
from bayesmol.testing import assert_calibrated, check_posterior


def batches(normal, count=40, rows=3, weights=12):
    truth = normal(weights)
    for _ in range(count):
        phi, noise = normal(rows, weights), 0.01 + normal(rows).square()
        yield phi, phi @ truth + noise.sqrt() * normal(rows), noise


def close(first, second, tolerance=1e-8):
    eye = torch.eye(len(first.mean), dtype=torch.float64)
    torch.testing.assert_close(first.mean, second.mean, rtol=0, atol=tolerance)
    torch.testing.assert_close(first.covariance(eye), second.covariance(eye), rtol=0, atol=tolerance)


def test_sequence_is_the_batch(normal):
    data = list(batches(normal))
    stream = Stream.empty(12)
    for part in data:
        stream = stream.updated(*part)
    batch = posterior_from_rows(*(torch.cat(column) for column in zip(*data, strict=True)))
    close(stream.posterior, batch)
    columns = LinearPosterior(torch.zeros(12).double(), None, torch.zeros(12, 0).double())
    for part in data:
        columns = columns.updated(*part)
    close(stream.posterior, columns)
    assert stream.gram.numel() == 144 and columns.factor.shape == (12, 120)


def test_forgetting_is_a_batch_with_more_noise_in_old_rows(normal):
    data, factor = list(batches(normal)), 0.9
    stream = Stream.empty(12, forgetting=factor)
    for part in data:
        stream = stream.updated(*part)
    ages = range(len(data), 0, -1)
    data = [(phi, y, noise / factor**age) for (phi, y, noise), age in zip(data, ages, strict=True)]
    close(stream.posterior, posterior_from_rows(*(torch.cat(column) for column in zip(*data, strict=True))))


def test_variance_returns_to_the_prior_and_not_beyond(normal):
    stream = Stream.empty(4, forgetting=0.5)
    stream = stream.updated(normal(20, 4), normal(20), torch.full((20,), 1e-4).double())
    row, empty = normal(1, 4), torch.zeros(0).double()
    variances = []
    for _ in range(60):
        variances.append(float(stream.posterior.variance(row)))
        stream = stream.updated(torch.zeros(0, 4).double(), empty, empty)
    prior = float(row.square().sum())
    assert all(earlier <= later for earlier, later in itertools.pairwise(variances))
    assert variances[0] < 1e-3 and variances[-1] == pytest.approx(prior, rel=1e-6) and variances[-1] <= prior


def test_states_do_not_change(normal):
    stream = Stream.empty(12).updated(*next(batches(normal)))
    before = stream.gram.clone(), stream.posterior.mean.clone()
    later = stream.updated(*next(batches(normal)))
    assert torch.equal(stream.gram, before[0]) and torch.equal(stream.posterior.mean, before[1])
    assert not torch.equal(later.posterior.mean, before[1])


def drifting(normal, forgetting, steps=400, rate=0.05):
    """Error, coverage at 90 % and log-density of predictions made before each label, of weights that wander."""
    weights, stream = normal(5), Stream.empty(5, forgetting=forgetting)
    noise, errors, inside, density = torch.full((2,), 0.01).double(), [], [], []
    for step in range(steps):
        weights = math.sqrt(1 - rate**2) * weights + rate * normal(5)
        phi = normal(2, 5)
        targets = phi @ weights + 0.1 * normal(2)
        prediction = stream.predict(phi, noise, unit="eV")
        if step >= 100:
            errors.append((targets - prediction.mean).square())
            inside.append(prediction.interval(0.9).contains(targets))
            density.append(prediction.log_prob(targets))
        stream = stream.updated(phi, targets, noise)
    return tuple(float(torch.cat(x).double().mean()) for x in (errors, inside, density))


def test_forgetting_tracks_a_drift_with_an_honest_variance():
    factors = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
    runs = {}
    for factor in factors:
        fresh = torch.Generator().manual_seed(5)
        runs[factor] = drifting(lambda *shape, g=fresh: torch.randn(*shape, generator=g, dtype=torch.float64), factor)
    best = max(factors, key=lambda factor: runs[factor][2])
    assert 0.4 < best < 1.0
    assert runs[best][0] < 0.25 * runs[1.0][0]
    assert runs[1.0][1] < 0.5 and 0.85 < runs[best][1] < 0.95


def test_without_drift_all_memory_is_best_and_intervals_cover(normal):
    hits = trials = 0
    for _ in range(60):
        truth, stream = normal(6), Stream.empty(6)
        noise = torch.full((10,), 0.04).double()
        phi = normal(10, 6)
        stream = stream.updated(phi, phi @ truth + 0.2 * normal(10), noise)
        row = normal(1, 6)
        prediction = stream.predict(row, noise[:1], unit="eV")
        hits += int(prediction.interval(0.8).contains(row @ truth + 0.2 * normal(1)))
        trials += 1
    assert_calibrated(hits, trials, 0.8)


def kernel(first, second):
    return torch.exp(-0.5 * torch.cdist(first, second).square())


def test_inducing_features_make_a_gaussian_process(normal):
    x, new = 2 * normal(15, 1), 2 * normal(6, 1)
    y, noise = torch.sin(x[:, 0]), torch.full((15,), 0.01).double()
    inducing = kernel(x, x) + 1e-10 * torch.eye(15).double()
    rows, left = inducing_features(kernel(x, x), inducing, torch.ones(15).double())
    assert float(left.max()) < 1e-6
    stream = Stream.empty(15).updated(rows[:7], y[:7], noise[:7]).updated(rows[7:], y[7:], noise[7:])
    new_rows, residual = inducing_features(kernel(new, x), inducing, torch.ones(6).double())
    prediction = stream.predict(new_rows, noise[:6], unit="eV", residual=residual)
    inverse = torch.linalg.inv(kernel(x, x) + 0.01 * torch.eye(15).double())
    cross = kernel(new, x)
    torch.testing.assert_close(prediction.mean, cross @ inverse @ y, rtol=0, atol=1e-6)
    want = 1 - (cross @ inverse * cross).sum(1)
    torch.testing.assert_close(prediction.epistemic.variance, want, rtol=0, atol=1e-6)
    check_posterior(prediction)


def test_variance_does_not_collapse_far_from_the_inducing_points(normal):
    centres = normal(4, 1)
    far = torch.tensor([[30.0]]).double()
    rows, left = inducing_features(kernel(far, centres), kernel(centres, centres), torch.ones(1).double())
    stream = Stream.empty(4).updated(normal(9, 4), normal(9), torch.full((9,), 1e-3).double())
    prediction = stream.predict(rows, torch.full((1,), 1e-3).double(), unit="", residual=left)
    assert float(prediction.epistemic.variance) == pytest.approx(1.0)


def test_bad_input(normal):
    stream, noise = Stream.empty(3), torch.ones(2).double()
    with pytest.raises(DataError, match="forgetting"):
        Stream.empty(3, forgetting=0.0)
    with pytest.raises(DataError, match="positive variances"):
        stream.updated(normal(2, 3), normal(2), 0 * noise)
    with pytest.raises(ShapeError, match="gram"):
        Stream(torch.zeros(2, 3).double(), torch.zeros(3).double())
    for wrong in (
        (normal(2, 4), normal(2), noise),
        (normal(2, 3), normal(3), noise),
        (normal(2, 3), normal(2), noise[:1]),
    ):
        with pytest.raises(ShapeError, match="shape"):
            stream.updated(*wrong)
    with pytest.raises(DataError, match="finite"):
        stream.updated(normal(2, 3), noise * math.nan, noise)
    with pytest.raises(ShapeError, match="cross"):
        inducing_features(normal(2, 3), torch.eye(2).double(), noise)
    with pytest.raises(ConvergenceError, match="inducing"):
        inducing_features(normal(2, 2), torch.ones(2, 2).double(), noise)
