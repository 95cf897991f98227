import numpy as np
import pytest
import torch
from scipy.stats import binom

from bayesmol.data.exact_chains import LinearProcess
from bayesmol.dynamics.linear import EDMD, TICA, VAMP
from bayesmol.dynamics.operator_posteriors import POSTERIORS, effective_pairs, matrix_normal_draws, sandwich
from bayesmol.errors import ConvergenceError, DataError

LAG, RHO = 5, 0.9


def source(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def data():
    return LinearProcess.autoregressive(RHO).simulate(6000, seed=1)


@pytest.fixture(scope="module")
def fitted(data):
    return TICA(lag=LAG, draws=1000).fit(data, seed=0)


def normal(*shape, seed):
    return torch.randn(*shape, generator=source(seed), dtype=torch.float64)


def test_one_function_is_the_likelihood_times_prior_on_a_grid():
    x = normal(9, seed=2)
    y = 0.6 * x + 0.5 * normal(9, seed=3)
    moments = (torch.full((1, 1), float(a @ b) / 9, dtype=torch.float64) for a, b in ((x, x), (x, y), (y, y)))
    drawn = matrix_normal_draws(*moments, torch.full((200_000,), 9.0, dtype=torch.float64), source())[:, 0, 0]
    k, s = torch.meshgrid(torch.linspace(-3, 4, 1401).double(), torch.logspace(-2, 1, 600).double(), indexing="ij")
    misfit = (y - k[..., None] * x).square().sum(-1)
    # Prior |Σ|⁻¹ = s⁻², and dΣ = 2 s ds = 2 s² d ln s.
    weight = (-9 * s.log() - misfit / (2 * s**2)).exp().sum(1)
    mass = (weight / weight.sum()).cumsum(0)
    for level in (0.025, 0.25, 0.5, 0.9, 0.975):
        wanted = k[int((mass < level).sum()), 0]
        assert float(drawn.quantile(level)) == pytest.approx(float(wanted), abs=0.02)


def test_more_functions_are_the_marginal_likelihood_by_importance_sampling():
    pairs, x = 15.0, normal(15, 2, seed=4)
    y = x @ torch.tensor([[0.7, 0.1], [-0.3, 0.4]]).double() + normal(15, 2, seed=5)
    early, cross, late = x.mT @ x / pairs, x.mT @ y / pairs, y.mT @ y / pairs
    drawn = matrix_normal_draws(early, cross, late, torch.full((40_000,), pairs, dtype=torch.float64), source(6))
    tried = torch.linalg.solve(early, cross) + 0.6 * normal(200_000, 2, 2, seed=7)
    residual = late - cross.mT @ tried - tried.mT @ cross + tried.mT @ early @ tried
    log = -0.5 * pairs * torch.linalg.slogdet(residual)[1]
    log = log + 0.5 * ((tried - torch.linalg.solve(early, cross)) / 0.6).square().sum((1, 2))
    weight = torch.softmax(log, 0)
    mean = torch.einsum("d,dij->ij", weight, tried)
    spread = torch.einsum("d,dij->ij", weight, (tried - mean).square()).sqrt()
    assert torch.allclose(drawn.mean(0), mean, atol=0.02)
    assert torch.allclose(drawn.std(0), spread, rtol=0.06)


def test_the_sandwich_is_the_double_sum_over_blocks(fitted):
    white, weights = fitted.moments, fitted.weights
    early, cross, _ = white.mean()
    operator = torch.linalg.solve(early, cross)
    score = (white.cross - white.early @ operator)[:, 1, 1].numpy()
    place = np.arange(len(score)) * white.length / weights.bandwidth
    kernel = np.exp(-((place[:, None] - place) ** 2) / 2)
    wanted = np.sqrt(score @ kernel @ score / (1 - kernel.mean())) / white.pairs
    drawn = torch.cat([part[1] for part in sandwich(white, weights, source(8))])[:, 1, 1]
    heavier = np.sqrt(weights.freedom / (weights.freedom - 2))
    assert float(drawn.std()) == pytest.approx(wanted * heavier, rel=0.08)


def test_overlapping_pairs_are_worth_fewer(data):
    apart = LinearProcess.autoregressive(RHO**LAG).simulate(6000, seed=2)
    alone = TICA(lag=1, draws=10).fit(apart, seed=0)
    overlapping = TICA(lag=LAG, draws=10).fit(data, seed=0)
    assert effective_pairs(alone.moments, alone.weights) == pytest.approx(6000, rel=0.15)
    assert effective_pairs(overlapping.moments, overlapping.weights) < 0.5 * 6000


@pytest.mark.parametrize("kind", [TICA, EDMD])
def test_the_three_agree_in_their_widths(data, kind):
    truth = torch.tensor([RHO**LAG])
    fits = [kind(lag=LAG, draws=1000, posterior=name).fit(data, seed=0) for name in POSTERIORS]
    values = [torch.view_as_complex(f.eigenvalues(1).values) if kind is EDMD else f.eigenvalues(1).values for f in fits]
    widths = [float(v.real.std()) for v in values]
    assert max(widths) / min(widths) < 1.15
    assert all(abs(float(v.real.mean()) - float(truth)) < 4 * w for v, w in zip(values, widths, strict=True))


def test_what_does_not_suit_is_refused():
    with pytest.raises(DataError, match="matrix-normal"):
        TICA(posterior="gibbs")
    for spec in ({"posterior": "sandwich"}, {"posterior": "matrix-normal"}):
        with pytest.raises(DataError, match="bootstrap"):
            VAMP(**spec)
        with pytest.raises(DataError, match="bootstrap"):
            TICA(equilibrium=False, **spec)
    one = torch.eye(3, dtype=torch.float64)
    with pytest.raises(ConvergenceError, match="more than 6 effective pairs"):
        matrix_normal_draws(one, one / 2, one, torch.tensor([100.0, 6.0]).double(), source())


@pytest.mark.slow
@pytest.mark.parametrize("name", POSTERIORS)
def test_intervals_cover(name):
    """200 repetitions at 95 %: the exact binomial band at three standard deviations."""
    truth, repeats = torch.tensor([RHO**LAG]), 200
    lower, upper = binom.ppf([0.00135, 0.99865], repeats, 0.95)
    spec = TICA(lag=LAG, draws=300, posterior=name)
    hits = 0
    for k in range(repeats):
        found = spec.fit(LinearProcess.autoregressive(RHO).simulate(6000, seed=k), seed=k).eigenvalues(1)
        hits += int(found.interval(0.95).contains(truth))
    assert lower <= hits <= upper
