import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression
from sklearn.linear_model import Ridge as SklearnRidge

from bayesmol.calibration.regressors import GaussianProcess, Ridge, cholesky, trained
from bayesmol.errors import ConvergenceError, DataError, ShapeError


def kernel(a, b):
    return torch.exp(-0.5 * torch.cdist(a, b) ** 2)


def least_norm(inputs, truth, points, intercept):
    """Predictions of the least-squares solution of least norm, from the pseudo-inverse."""
    centre, level = inputs.mean(0) * intercept, truth.mean() * intercept
    return level + (points - centre) @ (torch.linalg.pinv(inputs - centre) @ (truth - level))


@pytest.fixture
def data(normal):
    inputs = normal(60, 4) + torch.tensor([100.0, 0, 0, 0], dtype=torch.float64)
    return inputs, inputs @ normal(4) + 3 + normal(60), normal(7, 4)


@pytest.mark.parametrize("penalty", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize("intercept", [True, False])
def test_ridge_equals_scikit_learn(data, penalty, intercept):
    inputs, truth, points = data
    peer = SklearnRidge(penalty, fit_intercept=intercept).fit(inputs.numpy(), truth.numpy())
    found = Ridge(penalty, intercept).fit(inputs, truth)(points)
    assert found.shape == (1, 7)
    np.testing.assert_allclose(found[0], peer.predict(points.numpy()), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("penalty", [0.0, 1e-3, 1.0])
@pytest.mark.parametrize("intercept", [True, False])
def test_folds_equal_refitting(source, data, penalty, intercept):
    inputs, truth, points = data
    folds = torch.randint(0, 5, (60,), generator=source)
    models, residuals = Ridge(penalty, intercept).leave_fold_out(inputs, truth, folds)
    for k in range(5):
        model = Ridge(penalty, intercept).fit(inputs[folds != k], truth[folds != k])
        torch.testing.assert_close(models(points)[k], model(points)[0], rtol=1e-9, atol=1e-9)
        left = truth[folds == k] - model(inputs[folds == k])[0]
        torch.testing.assert_close(residuals[folds == k], left, rtol=1e-9, atol=1e-9)


def test_a_direction_of_one_fold_alone_does_not_cancel(data):
    # A column that is zero but in one fold, and large there: total minus own would leave rounding errors.
    inputs, truth, _ = data
    folds = torch.arange(60) % 3
    column = torch.where(folds == 0, 1e12 * (1 + torch.arange(60) / 7), 0.0).double()
    models, _ = Ridge(1.0, intercept=False).leave_fold_out(torch.cat([inputs, column[:, None]], 1), truth, folds)
    assert float(models.coefficients[0, -1]) == 0.0


@pytest.mark.parametrize("rows, columns", [(30, 30), (30, 40), (30, 29), (30, 8), (30, 31)])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("degenerate", [False, True])
def test_least_norm_leave_one_out_equals_refitting(normal, rows, columns, intercept, degenerate):
    inputs, truth, points = normal(rows, columns), normal(rows), normal(5, columns)
    if degenerate:  # equal rows, and a column that one row alone has
        inputs[4] = inputs[5]
        inputs[:, -1] = 0.0
        inputs[7, -1] = 2.0
    models, residuals = Ridge(0.0, intercept).leave_one_out(inputs, truth)
    for i in range(rows):
        rest = torch.arange(rows) != i
        want = least_norm(inputs[rest], truth[rest], points, intercept)
        torch.testing.assert_close(models(points)[i], want, rtol=1e-8, atol=1e-8)
        own = least_norm(inputs[rest], truth[rest], inputs[i : i + 1], intercept)[0]
        torch.testing.assert_close(residuals[i], truth[i] - own, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("penalty", [1e-6, 1.0])
@pytest.mark.parametrize("columns", [4, 80])
def test_ridge_leave_one_out_equals_refitting(normal, penalty, columns):
    inputs, truth, points = normal(40, columns), normal(40), normal(5, columns)
    models, residuals = Ridge(penalty).leave_one_out(inputs, truth)
    for i in range(0, 40, 7):
        rest = torch.arange(40) != i
        model = Ridge(penalty).fit(inputs[rest], truth[rest])
        torch.testing.assert_close(models(points)[i], model(points)[0], rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(residuals[i], truth[i] - model(inputs[i : i + 1])[0, 0], rtol=1e-7, atol=1e-7)


def test_process_leave_one_out_equals_refitting(normal):
    inputs, truth, points = normal(25, 2), normal(25), normal(6, 2)
    process = GaussianProcess(kernel, 0.1)
    models, residuals = process.leave_one_out(inputs, truth)
    for i in range(25):
        rest = torch.arange(25) != i
        model = process.fit(inputs[rest], truth[rest])
        torch.testing.assert_close(models(points)[i], model(points)[0])
        torch.testing.assert_close(residuals[i], truth[i] - model(inputs[i : i + 1])[0, 0])


def test_trained_copies_a_regressor(data):
    inputs, truth, points = data
    peer = LinearRegression()
    found = trained(peer, inputs.float(), truth)(points)
    assert not hasattr(peer, "coef_") and found.dtype == torch.float64
    torch.testing.assert_close(found, trained(Ridge(0.0), inputs.float(), truth)(points), rtol=1e-5, atol=1e-5)
    linear = GaussianProcess(lambda a, b: a @ b.T, 2.0)
    torch.testing.assert_close(trained(linear, inputs, truth)(points), Ridge(2.0, False).fit(inputs, truth)(points)[0])


class Broken:
    def fit(self, inputs, truth):
        return self

    def predict(self, inputs):
        return np.full(len(inputs), math.nan)


def test_bad_input(normal, data):
    inputs, truth, points = data
    for penalty in (-1.0, math.inf, math.nan):
        with pytest.raises(DataError, match="penalty"):
            Ridge(penalty)
    with pytest.raises(DataError, match="noise"):
        GaussianProcess(kernel, 0.0)
    with pytest.raises(ShapeError, match="inputs, truth"):
        Ridge().fit(inputs, truth[:5])
    with pytest.raises(DataError, match="finite numbers"):
        Ridge().fit(inputs * math.nan, truth)
    with pytest.raises(DataError, match="two labels"):
        Ridge().fit(inputs[:1], truth[:1])
    with pytest.raises(DataError, match="fit and predict"):
        trained(object(), inputs, truth)
    with pytest.raises(DataError, match="finite predictions"):
        trained(Broken(), inputs, truth)(points)
    with pytest.raises(ConvergenceError, match="increase the penalty"):
        Ridge(0.0).leave_fold_out(torch.cat([inputs, inputs], 1), truth, torch.arange(60) % 5)
    with pytest.raises(ConvergenceError, match="matrix"):
        cholesky(torch.ones(3, 3).double(), "matrix")
    with pytest.raises(ShapeError, match="kernel"):
        GaussianProcess(lambda a, b: kernel(a, b)[:2], 1.0).fit(inputs, truth)
