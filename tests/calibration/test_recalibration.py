import json
import math

import pytest
import torch
from scipy import stats

from bayesmol.calibration.metrics import standardised
from bayesmol.calibration.recalibration import Recalibration, Recalibrator
from bayesmol.data import Labelled, Structures
from bayesmol.errors import DataError, FormatError, ShapeError, UnitError
from bayesmol.posterior import Draws, Gaussian, Mixture
from bayesmol.posterior.location_scale import Laplace, StudentT
from bayesmol.posterior.quantiles import Quantiles
from bayesmol.posterior.recalibrated import Recalibrated
from bayesmol.testing import assert_calibrated

METHODS = ["scale", "affine", "isotonic", "cdf"]


@pytest.fixture
def sample(normal):
    """Posterior whose standard deviations shall be doubled, and labels."""

    def made(*shape, kind=Gaussian):
        mean, sigma = normal(*shape), 0.2 + normal(*shape).abs()
        truth = mean + 2 * sigma * normal(*shape)
        if kind is Gaussian:
            return Gaussian(mean, sigma.square(), unit="eV"), truth
        return kind.from_stddev(mean, sigma, *((5.0,) if kind is StudentT else ()), unit="eV"), truth

    return made


def others(posterior, normal):
    """Other kinds of posteriors with the mean and about the spread of a Gaussian."""
    spread = posterior.stddev * normal(30, *posterior.shape)
    yield Mixture(posterior.mean + spread[:4] / 2, posterior.variance.expand(4, *posterior.shape) / 2, unit="eV")
    yield Draws((posterior.mean + spread)[None], unit="eV")
    yield Laplace.from_stddev(posterior.mean, posterior.stddev, unit="eV")
    yield StudentT.from_stddev(posterior.mean, posterior.stddev, 5.0, unit="eV")
    levels = torch.linspace(0, 1, 11, dtype=torch.float64)
    yield Quantiles(levels, posterior.mean + posterior.stddev * (levels - 0.5).reshape(-1, 1, 1), unit="eV")


@pytest.mark.parametrize("method", ["scale", "affine"])
def test_mean_square_of_z_is_one_on_the_fit(sample, normal, method):
    posterior, truth = sample(60, 3)
    for kind in (posterior, *others(posterior, normal)):
        better = Recalibration(method).fit(kind, truth)(kind)
        assert type(better) is type(kind) and better.unit == "eV"
        torch.testing.assert_close(better.mean, kind.mean, rtol=1e-9, atol=1e-9)
        assert float(standardised(better, truth).square().mean()) == pytest.approx(1.0, abs=1e-9)


def test_scale_in_closed_form(sample):
    posterior, truth = sample(60, 3)
    recalibrator = Recalibration().fit(posterior, truth)
    a = float(((truth - posterior.mean).square() / posterior.variance).mean().sqrt())
    torch.testing.assert_close(recalibrator(posterior).stddev, a * posterior.stddev)
    assert str(recalibrator) == "scale recalibration in eV by 60 structures"


@pytest.mark.parametrize("method", METHODS)
def test_a_wrong_scale_is_repaired_out_of_sample(sample, method):
    recalibrator = Recalibration(method).fit(*sample(4000))
    posterior, truth = sample(4000)
    better = recalibrator(posterior)
    for level in (0.5, 0.9):
        # The fit has an error like that of the test: with both the band is √2 wider, here by its confidence.
        assert_calibrated(int(better.interval(level).contains(truth).sum()), 4000, level, confidence=0.99995)
        with pytest.raises(AssertionError):
            hits = int(posterior.interval(level).contains(truth).sum())
            assert_calibrated(hits, 4000, level, confidence=0.99995)
    if method != "cdf":
        # var z² = 2 (isotonic steps add some): five standard errors of the difference of two means
        assert float(standardised(better, truth).square().mean()) == pytest.approx(1, abs=5 * math.sqrt(4 / 4000))


def test_affine_finds_slope_and_constant(normal):
    sigma = 0.1 + normal(20_000).abs()
    posterior = Gaussian(torch.zeros_like(sigma), sigma.square(), unit="eV")
    recalibrator = Recalibration("affine").fit(posterior, (0.7 * sigma + 0.4) * normal(20_000))
    a, b = recalibrator.curves[0][:, 0].tolist()
    assert a == pytest.approx(0.7, abs=0.05) and b == pytest.approx(0.4, abs=0.03)
    torch.testing.assert_close(recalibrator(posterior).stddev, a * sigma + b)


def test_isotonic_repairs_a_bent_curve_where_a_scale_cannot(normal):
    def made():
        sigma = 0.1 + normal(6000).abs()
        return Gaussian(torch.zeros_like(sigma), sigma.square(), unit="eV"), (0.3 + sigma**3) * normal(6000)

    known, (posterior, truth) = made(), made()
    bent, scaled = (Recalibration(m).fit(*known)(posterior) for m in ("isotonic", "scale"))
    order = posterior.stddev.argsort()
    assert bool((bent.stddev[order].diff() >= -1e-9).all())
    parts = order.chunk(5)
    local, wrong = ([standardised(p[part], truth[part]).square().mean() for part in parts] for p in (bent, scaled))
    # Each part has 1200 labels, so the relative error is √(2/1200) = 0.04 of the labels, and more of the steps.
    assert max(abs(float(value) - 1) for value in local) < 0.3
    assert max(abs(float(value) - 1) for value in wrong) > 0.6
    assert float(bent.log_prob(truth).mean()) > float(scaled.log_prob(truth).mean()) + 0.1
    beyond = Gaussian(torch.zeros(2).double(), torch.tensor([1e-8, 1e8]).double(), unit="eV")
    ends = Recalibration("isotonic").fit(*known)(beyond).variance
    assert ends.tolist() == pytest.approx([float(bent.variance.min()), float(bent.variance.max())], rel=1e-9)


def test_cdf_makes_pit_uniform(normal):
    """Labels with bias and skewness: the probability integral transform of new ones is uniform again."""

    def made():
        mean = normal(3000)
        return Gaussian(mean, torch.ones_like(mean), unit="eV"), mean + 0.6 * normal(3000).exp() - 0.3

    known, (posterior, truth) = made(), made()
    better = Recalibration("cdf").fit(*known)(posterior)
    assert isinstance(better, Recalibrated)
    inside = Recalibration("cdf").fit(posterior, truth)(posterior)
    steps = inside.curves[0][1, 1:-1]
    reached = (inside.cdf(truth) <= steps[:, None]).double().mean(1)
    assert float((reached - steps).abs().max()) < 1 / 3000 + 1e-9
    # The curve has the sampling error of as many labels: a two-sample test.
    assert stats.kstest(better.cdf(truth).numpy(), inside.cdf(truth).numpy()).pvalue > 1e-3
    bound = stats.kstwobign.isf(1e-4) * math.sqrt(2 / 3000)
    assert stats.kstest(better.cdf(truth).numpy(), "uniform").statistic < bound
    assert stats.kstest(posterior.cdf(truth).numpy(), "uniform").statistic > bound
    assert float(better.log_prob(truth).mean()) > float(posterior.log_prob(truth).mean()) + 0.2
    bias = float((truth - posterior.mean).mean())
    assert float((better.mean - posterior.mean).mean()) == pytest.approx(bias, abs=0.1) and bias > 0.5


def test_cdf_of_a_true_posterior_changes_little(normal):
    posterior = Gaussian(normal(2500), torch.ones(2500).double(), unit="eV")
    truth, new = posterior.sample(2, seed=0)
    better = Recalibration("cdf").fit(posterior, truth)(posterior)
    lost = (posterior.log_prob(new) - better.log_prob(new)).mean()
    # 50 steps of 50 labels: each fitted probability costs about 1/(2·50·50) nats
    assert 0 < float(lost) < 0.05


def test_cdf_of_known_quantiles(normal):
    levels = torch.tensor([0.02, 0.2, 0.5, 0.8, 0.98], dtype=torch.float64)
    gaussian = Gaussian(normal(2000), torch.ones(2000).double(), unit="eV")
    posterior, truth = Quantiles(levels, gaussian.quantile(levels), unit="eV"), gaussian.mean + 2 * normal(2000)
    better = Recalibration("cdf").fit(posterior, truth)(posterior)
    assert isinstance(better, Quantiles) and torch.equal(better.values, posterior.values)
    want = (2000 * (truth <= posterior.values).double().mean(1) + levels) / 2001
    torch.testing.assert_close(better.levels, want)
    with pytest.raises(DataError, match="'cdf' of Quantiles"):
        Recalibration("cdf").fit(posterior, truth, categories=torch.arange(2000) % 2)


def test_categories_have_their_own_corrections(normal):
    species = torch.tensor([1, 8]).repeat(500)
    factor = torch.where(species == 1, 0.5, 3.0)[:, None].double()
    posterior = Gaussian(normal(1000, 3), normal(1000, 3).square() + 0.1, unit="eV/Å")
    truth = posterior.mean + factor * posterior.stddev * normal(1000, 3)
    for method in METHODS:
        recalibrator = Recalibration(method).fit(posterior, truth, categories=species)
        better = recalibrator(posterior, species)
        for kind in (1, 8):
            rows = species == kind
            alone = Recalibration(method).fit(posterior[rows], truth[rows])(posterior[rows])
            torch.testing.assert_close(better.variance[rows], alone.variance)
            torch.testing.assert_close(better.cdf(truth)[rows], alone.cdf(truth[rows]))
        with pytest.raises(DataError, match=r"\[6\]; calibrate on these too"):
            recalibrator(posterior, torch.where(species == 1, 6, 8))
        with pytest.raises(DataError, match="one category a row"):
            recalibrator(posterior)
        with pytest.raises(ShapeError, match="one category for each row"):
            recalibrator(posterior, species[:5])
        with pytest.raises(DataError, match="none for this recalibrator"):
            Recalibration(method).fit(posterior, truth)(posterior, species)


def test_structures_count_once(normal):
    posterior = Gaussian(torch.zeros(4, 2).double(), torch.ones(4, 2).double(), unit="eV")
    truth, groups = torch.tensor([[1.0, 1], [1, 1], [1, 1], [3, 3]]).double(), torch.tensor([7, 7, 7, 2])
    each = Recalibration().fit(posterior, truth, groups=groups)
    whole = Recalibration(unit="structure").fit(posterior, truth, groups=groups)
    assert each.curves[0][0].item() == pytest.approx(math.sqrt((3 + 9) / 4))
    assert whole.curves[0][0].item() == pytest.approx(math.sqrt((1 + 9) / 2))
    assert each.counts == whole.counts == (2,)


@pytest.mark.parametrize("method", METHODS)
def test_order_and_units_do_not_matter(sample, method):
    posterior, truth = sample(400)
    better = Recalibration(method).fit(posterior, truth)(posterior)
    order = torch.arange(400).flip(0)
    turned = Recalibration(method).fit(posterior[order], truth[order])(posterior)
    torch.testing.assert_close(turned.stddev, better.stddev)
    meV = Gaussian(1e3 * posterior.mean, 1e6 * posterior.variance, unit="meV")
    thousandfold = Recalibration(method).fit(meV, 1e3 * truth)(meV)
    torch.testing.assert_close(thousandfold.stddev, 1e3 * better.stddev, rtol=1e-6, atol=0)
    with pytest.raises(UnitError, match="meV"):
        Recalibration(method).fit(posterior, truth)(meV)


def test_a_covariance_is_scaled_as_a_whole(normal):
    root = normal(4, 4)
    covariance = root @ root.T
    posterior = Gaussian(normal(4), covariance.diagonal(), unit="eV", covariance=covariance)
    recalibrator = Recalibration("affine").fit(posterior, normal(4))
    better = recalibrator(posterior)
    factor = better.stddev / posterior.stddev
    torch.testing.assert_close(better.covariance, covariance * torch.outer(factor, factor))
    assert better.rule is None


def test_errors_of_labels_are_taken_off(normal):
    posterior = Gaussian(torch.zeros(20_000).double(), torch.ones(20_000).double(), unit="eV")
    labels = Gaussian(2 * normal(20_000) + 3 * normal(20_000), torch.full((20_000,), 9.0).double(), unit="eV")
    assert Recalibration().fit(posterior, labels).curves[0][0].item() == pytest.approx(2.0, abs=0.15)
    assert Recalibration().fit(posterior, labels.mean).curves[0][0].item() == pytest.approx(math.sqrt(13), abs=0.1)
    isotonic = Recalibration("isotonic").fit(posterior, labels)(posterior)
    assert float(isotonic.stddev[0]) == pytest.approx(2.0, abs=0.15)
    for method in ("affine", "cdf"):
        with pytest.raises(DataError, match="'scale' or 'isotonic'"):
            Recalibration(method).fit(posterior, labels)


def test_labelled_structures_know_their_structures(normal):
    positions = normal(5, 3)
    structures = Structures(
        positions,
        torch.tensor([1, 8, 1, 1, 8]),
        torch.tensor([0, 2, 5]),
        torch.zeros(2, 3, 3).double(),
        torch.zeros(2, 3, dtype=torch.bool),
    )
    forces = normal(5, 3)
    labelled = Labelled(structures, energies=normal(2), forces=forces)
    posterior = Gaussian(torch.zeros(5, 3).double(), torch.ones(5, 3).double(), unit="eV/Å")
    recalibrator = Recalibration(unit="structure").fit(posterior, labelled, categories=structures.species)
    assert recalibrator.counts == (2, 2) and recalibrator.categories.tolist() == [1, 8]
    rows = structures.species == 8
    assert recalibrator.curves[1][0].item() == pytest.approx(float(forces[rows].square().mean().sqrt()))


@pytest.mark.parametrize("method", METHODS)
def test_state(sample, method):
    posterior, truth = sample(200)
    for categories in (None, torch.arange(200) % 3):
        recalibrator = Recalibration(method).fit(posterior, truth, categories=categories)
        header, arrays = recalibrator.state()
        other = Recalibrator.from_state(json.loads(json.dumps(header)), {k: v.clone() for k, v in arrays.items()})
        first, second = recalibrator(posterior, categories), other(posterior, categories)
        assert torch.equal(first.variance, second.variance) and torch.equal(first.quantile(0.7), second.quantile(0.7))
        assert other.counts == recalibrator.counts and other.unit == "eV"
        for broken in ({}, header | {"counts": [1, 1]}, header | {"method": "magic"}):
            with pytest.raises(FormatError, match="state"):
                Recalibrator.from_state(broken, arrays)
    with pytest.raises(FormatError, match="state"):
        Recalibrator.from_state(header, {})


def test_float32_stays(sample):
    posterior, truth = sample(200)
    single = Gaussian(posterior.mean.float(), posterior.variance.float(), unit="eV")
    for method in METHODS:
        better = Recalibration(method).fit(single, truth.float())(single)
        assert better.stddev.dtype == torch.float32
        want = Recalibration(method).fit(posterior, truth)(posterior).stddev.float()
        torch.testing.assert_close(better.stddev, want, rtol=1e-4, atol=1e-4)


def test_bad_input(sample, normal):
    posterior, truth = sample(50, 3)
    for wrong in ({"method": "magic"}, {"unit": "atom"}):
        with pytest.raises(DataError, match="one of"):
            Recalibration(**wrong)
    with pytest.raises(ShapeError, match="truth"):
        Recalibration().fit(posterior, truth[:, 0])
    with pytest.raises(DataError, match="finite labels"):
        Recalibration().fit(posterior, truth * math.nan)
    with pytest.raises(ShapeError, match="each of the 50 rows"):
        Recalibration().fit(posterior, truth, categories=torch.arange(3))
    with pytest.raises(DataError, match="differ from the mean"):
        Recalibration().fit(posterior, posterior.mean)
    certain = Gaussian(posterior.mean, 0 * posterior.variance, unit="eV")
    with pytest.raises(DataError, match="positive finite"):
        Recalibration().fit(certain, truth)
    with pytest.raises(DataError, match="positive finite"):
        Recalibration().fit(posterior, truth)(certain)
    heavy = StudentT(posterior.mean, posterior.stddev, 1.5, unit="eV")
    with pytest.raises(DataError, match="positive finite"):
        Recalibration().fit(heavy, truth)
    assert bool(Recalibration("cdf").fit(heavy, truth)(heavy).quantile(0.9).isfinite().all())
    with pytest.raises(DataError, match="at least 40"):
        Recalibration("isotonic").fit(posterior[:13], truth[:13])
    with pytest.raises(DataError, match="got Draws"):
        Recalibration("cdf").fit(Draws(normal(1, 20, 50, 3), unit="eV"), truth)
    levels = torch.tensor([0.1, 0.9], dtype=torch.float64)
    with pytest.raises(DataError, match="levels 0 and 1"):
        Recalibration().fit(Quantiles(levels, posterior.quantile(levels), unit="eV"), truth)
    with pytest.raises(DataError, match="recalibrate the original once"):
        twice = Recalibration("cdf").fit(posterior, truth)(posterior)
        Recalibration().fit(posterior, truth)(twice)
