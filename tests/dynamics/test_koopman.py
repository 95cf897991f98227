import numpy as np
import pytest
import torch

from bayesmol.data.exact_chains import LinearProcess
from bayesmol.dynamics.linear import EDMD, TICA
from bayesmol.errors import ConvergenceError, DataError

MIXING = torch.from_numpy(np.random.default_rng(1).standard_normal((3, 3)))


@pytest.fixture(scope="module")
def plain():
    return LinearProcess.autoregressive(0.95, 0.8, 0.3).simulate(6000, seed=0).parts[0]


@pytest.fixture(scope="module")
def data(plain):
    return plain @ MIXING


def test_eigenfunctions_are_normalised_and_recover_the_process(data, plain):
    fitted = TICA(lag=2, draws=100).fit(data, seed=0)
    slow = plain[:, 0]
    drawn = fitted.eigenfunctions(data, 2)
    assert drawn.shape == (len(data), 2)
    for values in (fitted.transform(data, 1)[:, 0], drawn.mean[:, 0]):
        assert abs(float(torch.corrcoef(torch.stack([values, slow]))[0, 1])) > 0.99
    assert float(fitted.transform(data).std(0).sub(1).abs().max()) < 0.01
    assert float(drawn.stddev.mean()) < 0.3, "draws have one sign"


def test_gaps(data):
    fitted = TICA(lag=1, draws=200).fit(data, seed=0)
    assert fitted.gap_probability(1, 2.0) > 0.99 > 0.01 > fitted.gap_probability(1, 10.0)
    with pytest.raises(DataError, match="after"):
        fitted.gap_probability(3)


def test_growing_modes_have_no_timescale():
    x = np.cumsum(np.random.default_rng(0).standard_normal((3000, 1)), 0)
    with pytest.raises(ConvergenceError):
        EDMD(draws=200).fit(x, seed=0).timescales()


def test_scores_and_their_power(data):
    fitted = TICA(lag=2, draws=50).fit(data, seed=0)
    values = fitted.eigenvalues().values
    assert torch.allclose(fitted.score().values, 1 + values.square().sum(-1))
    assert torch.allclose(fitted.score(1.0).values, 1 + values.sum(-1))


def test_counts_of_processes(data):
    fitted = TICA(draws=20).fit(data, seed=0)
    assert fitted.timescales(2).shape == (2,)
    for count in (0, 4):
        with pytest.raises(DataError, match="count"):
            fitted.timescales(count)


@pytest.mark.parametrize("visits", [2, 4])
def test_a_rare_process_rests_on_its_visits(visits):
    source = torch.Generator().manual_seed(0)
    x = 0.3 * torch.randn(20_000, 1, generator=source, dtype=torch.float64)
    for start in (torch.randperm(180, generator=source)[:visits] * 100).tolist():
        x[start : start + 60] += 5
    fitted = TICA(lag=5).fit(x, seed=0)
    assert float(fitted.support(fitted.eigenvalues(1))) == pytest.approx(visits, rel=0.5)
    with pytest.raises(DataError, match="300"):
        fitted.support(TICA(lag=5, draws=100).fit(x, seed=0).eigenvalues(1))
    with pytest.raises(DataError, match="bootstrap"):
        other = TICA(lag=5, posterior="matrix-normal").fit(x, seed=0)
        other.support(other.eigenvalues(1))
