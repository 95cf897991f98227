import ase
import numpy as np
import pytest
import torch
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from scipy import stats

from bayesmol.calibration.inputs import predictive
from bayesmol.errors import DataError, ShapeError, UnitError
from bayesmol.posterior import Draws, Gaussian, Prediction
from bayesmol.posterior.quantiles import Quantiles


@pytest.fixture
def gaussian(normal):
    return Gaussian(normal(6, 2), normal(6, 2).square() + 0.1, unit="eV")


@pytest.fixture
def table(normal):
    x = normal(60, 3).numpy()
    return x, x[:, 0] + 0.3 * normal(60).numpy()


def test_a_posterior_is_itself(gaussian):
    assert predictive(gaussian) is gaussian and predictive(gaussian, unit="eV") is gaussian
    with pytest.raises(UnitError, match="meV"):
        predictive(gaussian, unit="meV")


def test_a_prediction_is_told_by_the_unit(normal):
    energy = Gaussian(normal(1), torch.ones(1).double(), unit="eV")
    forces = Gaussian(normal(2, 3), torch.ones(2, 3).double(), unit="eV/Å")
    prediction = Prediction(energy, forces, torch.tensor([0, 2]))
    assert predictive(prediction) is energy and predictive(prediction, unit="eV/Å") is forces
    with pytest.raises(DataError, match="stress"):
        predictive(prediction, unit="eV/Å³")
    with pytest.raises(UnitError, match="which of energy"):
        predictive(prediction, unit="K")


def test_mean_and_standard_deviation(gaussian):
    mean, stddev = gaussian.mean, gaussian.stddev
    for pair in ((mean, stddev), (mean.numpy(), stddev.numpy()), (mean.tolist(), stddev.tolist())):
        got = predictive(pair, unit="eV")
        assert type(got) is Gaussian and got.unit == "eV" and got.mean.dtype == torch.float64
        torch.testing.assert_close(got.stddev, stddev)
    single = predictive((mean.float(), stddev))
    assert single.mean.dtype == single.variance.dtype == torch.float32
    assert predictive((1.0, 0.5)).variance.item() == 0.25
    with pytest.raises(ShapeError, match="stddev"):
        predictive((mean, stddev[0]))
    for wrong in (-1.0, float("nan")):
        with pytest.raises(DataError, match="≥ 0"):
            predictive((1.0, wrong))


def test_draws(normal):
    draws = normal(50, 4, 3)
    for source in (draws, draws.numpy(), draws.tolist(), list(draws.numpy())):
        got = predictive(source, unit="eV")
        assert isinstance(got, Draws) and torch.equal(got.values, draws[None])
    for wrong in (normal(1, 4), normal(4)[0]):
        with pytest.raises(ShapeError, match="point estimate"):
            predictive(wrong)
    with pytest.raises(DataError, match="finite"):
        predictive(draws * float("nan"))


def test_chains_of_an_xarray_are_kept(normal):
    import xarray  # comes with ArviZ

    array = xarray.DataArray(normal(2, 30, 5).numpy(), dims=("chain", "draw", "x"))
    assert predictive(array).values.shape == (2, 30, 5) and predictive(array[0]).values.shape == (1, 30, 5)


def test_quantiles_and_sites(normal):
    got = predictive({0.9: [2.0, 3.0], 0.1: [0.0, 1.0], 0.5: np.array([1.0, 2.0])}, unit="eV")
    assert isinstance(got, Quantiles) and got.levels.tolist() == [0.1, 0.5, 0.9]
    assert got.interval(0.8).lower.tolist() == [0.0, 1.0]
    draws = normal(30, 5)
    assert torch.equal(predictive({"obs": draws, "slope": normal(30)}).values[0], draws)
    assert torch.equal(predictive({"y": draws}).values[0], draws)
    for sites in ({"y": draws, "slope": draws}, {}):
        with pytest.raises(DataError, match="site 'obs'"):
            predictive(sites)


def test_distributions():
    assert type(predictive(stats.norm([0.0, 1.0], 2.0), unit="eV")) is Gaussian
    assert type(predictive(torch.distributions.Normal(torch.zeros(3), 1.0))) is Gaussian
    assert predictive(torch.distributions.Exponential(torch.ones(3)), size=70, seed=1).values.shape == (1, 70, 3)


def test_callables(normal):
    x = normal(7, 2)
    got = predictive(lambda x: (x[:, 0], x[:, 1].abs()), x, unit="eV")
    assert torch.equal(got.mean, x[:, 0]) and got.unit == "eV"
    assert predictive(lambda a, b: (a, b.abs()), (x[:, 0], x[:, 1])).shape == (7,)
    assert isinstance(predictive(lambda x: torch.distributions.Laplace(x, 1.0), x).quantile(0.1), torch.Tensor)
    network = torch.nn.Linear(2, 2).double()
    assert predictive(lambda x: network(x).exp().unbind(1), x).mean.requires_grad is False
    noisy = [predictive(lambda x: {"obs": x + torch.randn(20, 7, 2)}, x, seed=s).values for s in (0, 0, 1)]
    assert torch.equal(noisy[0], noisy[1]) and not torch.equal(noisy[0], noisy[2])
    with pytest.raises(DataError, match="bare array"):
        predictive(network, x)


def test_scikit_learn_with_standard_deviations(table):
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import WhiteKernel
    from sklearn.linear_model import BayesianRidge, LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = table
    process = GaussianProcessRegressor(1.0 * WhiteKernel(1.0), optimizer=None)
    for model in (BayesianRidge(), process, make_pipeline(StandardScaler(), BayesianRidge())):
        model.fit(x, y)
        got, want = predictive(model, x, unit="eV"), model.predict(x, return_std=True)
        torch.testing.assert_close(got.mean, torch.tensor(want[0]))
        torch.testing.assert_close(got.stddev, torch.tensor(want[1]))
    with pytest.raises(DataError, match="bare array"):
        predictive(LinearRegression().fit(x, y), x)
    with pytest.raises(DataError, match="with inputs"):
        predictive(BayesianRidge())


def test_forests(table):
    from sklearn.ensemble import BaggingRegressor, ExtraTreesRegressor, GradientBoostingRegressor, RandomForestRegressor

    x, y = table
    options = {"n_estimators": 7, "random_state": 0}
    for forest in (RandomForestRegressor(**options), ExtraTreesRegressor(**options)):
        got = predictive(forest.fit(x, np.stack([y, -y], 1)), x, unit="eV")
        assert isinstance(got, Draws) and got.values.shape == (1, 7, 60, 2)
        torch.testing.assert_close(got.mean, torch.tensor(forest.predict(x)))
    bagging = BaggingRegressor(max_features=0.7, **options).fit(x, y)
    torch.testing.assert_close(predictive(bagging, x).mean, torch.tensor(bagging.predict(x)))
    with pytest.raises(DataError, match="not the mean of its members"):
        predictive(GradientBoostingRegressor(**options).fit(x, y), x)


def test_gpytorch(normal):
    import gpytorch

    class Model(gpytorch.models.ExactGP):
        def __init__(self, x, y, likelihood):
            super().__init__(x, y, likelihood)
            self.mean, self.kernel = gpytorch.means.ZeroMean(), gpytorch.kernels.RBFKernel()

        def forward(self, x):
            return gpytorch.distributions.MultivariateNormal(self.mean(x), self.kernel(x))

    x = torch.linspace(0, 1, 10).double()
    likelihood = gpytorch.likelihoods.GaussianLikelihood().double()
    model, new = Model(x, x.sin(), likelihood).double(), torch.rand(4, dtype=torch.float64)
    model.train(), likelihood.eval()
    got = predictive((model, likelihood), new, unit="eV")
    assert model.training and not likelihood.training
    assert torch.equal(predictive(model, new).mean, got.mean)
    noise, width = likelihood.noise.item(), model.kernel.lengthscale.item()

    def kernel(a, b):
        return torch.exp(-((a[:, None] - b) ** 2) / (2 * width**2))

    gram = kernel(x, x) + noise * torch.eye(10).double()
    want = kernel(new, new) - kernel(new, x) @ torch.linalg.solve(gram, kernel(x, new)) + noise * torch.eye(4).double()
    torch.testing.assert_close(got.covariance, want.detach(), rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_botorch_scales_back(normal):
    from botorch import models

    x = torch.rand(20, 2, dtype=torch.float64)
    model = models.SingleTaskGP(x, 100 + 50 * normal(20, 1))
    got, want = predictive(model, x), model.posterior(x, observation_noise=True)
    torch.testing.assert_close(got.mean, want.mean[:, 0].detach())
    torch.testing.assert_close(got.variance, want.variance[:, 0].detach())
    assert float(got.mean.mean()) > 50


def test_predictive_of_pyro(normal):
    import pyro
    from pyro import distributions as pd
    from pyro.infer import Predictive

    def model(x):
        slope = pyro.sample("slope", pd.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("obs", pd.Normal(slope * x, 0.1))

    x, before = torch.arange(4.0), torch.random.get_rng_state()
    first, again = (predictive(Predictive(model, num_samples=50), x, unit="eV", seed=2) for _ in range(2))
    assert first.values.shape == (1, 50, 4) and torch.equal(first.values, again.values)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_predictive_of_numpyro():
    import numpyro
    from numpyro import distributions as nd
    from numpyro.infer import Predictive

    def model(x):
        numpyro.sample("obs", nd.Normal(numpyro.sample("slope", nd.Normal(0.0, 1.0)) * x, 0.1))

    source, x = Predictive(model, num_samples=50), np.arange(4.0)
    first, again, other = (predictive(source, x, unit="eV", seed=s) for s in (2, 2, 3))
    assert first.values.shape == (1, 50, 4) and torch.equal(first.values, again.values)
    assert not torch.equal(first.values, other.values)
    assert predictive(Predictive(model, num_samples=9, return_sites=["slope"]), x).values.shape == (1, 9)


class Committee(Calculator):
    """Energies and forces that depend on the positions alone, and results of a spread to choose."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, **spread):
        super().__init__()
        self.spread = spread

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        forces = -self.atoms.positions
        self.results = {"energy": 0.5 * (forces**2).sum(), "forces": forces, "stress": np.arange(6.0)}
        self.results |= {name: make(self.atoms) for name, make in self.spread.items()}


def test_calculators(normal):
    structures = [ase.Atoms("H" * n, normal(n, 3).numpy()) for n in (2, 3)]
    positions = torch.tensor(np.concatenate([s.positions for s in structures]))
    energies = torch.stack([positions[:2].square().sum() / 2, positions[2:].square().sum() / 2])
    spreads = {
        "energy_stddev": lambda a: 0.1 * len(a),
        "forces_var": lambda a: 0.04 * np.ones((len(a), 3)),
        "stress_uncertainty": lambda a: 0.1 * np.arange(6.0),
    }
    energy = predictive(Committee(**spreads), structures)
    torch.testing.assert_close(energy.mean, energies)
    assert energy.unit == "eV" and energy.stddev.tolist() == pytest.approx([0.2, 0.3])
    forces = predictive(Committee(**spreads), structures, unit="eV/Å")
    torch.testing.assert_close(forces.mean, -positions)
    assert forces.shape == (5, 3) and forces.stddev.unique().tolist() == [pytest.approx(0.2)]
    stress = predictive(Committee(**spreads), structures[0], unit="eV/Å³")
    want = torch.tensor([[0.0, 5, 4], [5, 1, 3], [4, 3, 2]]).double()
    torch.testing.assert_close(stress.mean, want[None])
    torch.testing.assert_close(stress.stddev, 0.1 * want[None])
    assert all(s.calc is None for s in structures)


def test_committees(normal):
    structures = [ase.Atoms("H" * n, normal(n, 3).numpy()) for n in (2, 3)]
    spreads = {
        "energies": lambda a: np.arange(4.0) + len(a),
        "energy_var": lambda a: 1.25,
        "forces_comm": lambda a: np.arange(4.0)[:, None, None] + a.positions,
    }
    energy = predictive(Committee(**spreads), structures)
    assert isinstance(energy, Draws) and energy.values.shape == (1, 4, 2)
    assert energy.mean.tolist() == [3.5, 4.5] and energy.variance.tolist() == [1.25, 1.25]
    forces = predictive(Committee(**spreads), structures, unit="eV/Å")
    assert forces.values.shape == (1, 4, 5, 3)
    torch.testing.assert_close(forces.mean[2:], torch.tensor(structures[1].positions) + 1.5)
    with pytest.raises(DataError, match="stress_stddev"):
        predictive(Committee(**spreads), structures, unit="eV/Å³")
    with pytest.raises(DataError, match="energy_stddev"):
        predictive(EMT(), ase.Atoms("Cu"))


class Potential:
    """What a potential of this package looks like."""

    def predict(self, structures):
        energy = Gaussian(torch.zeros(1).double(), torch.ones(1).double(), unit="eV")
        forces = Gaussian(torch.zeros(2, 3).double(), torch.ones(2, 3).double(), unit="eV/Å")
        return Prediction(energy, forces, torch.tensor([0, 2]))


def test_potentials_and_their_calculator(normal):
    from bayesmol.potentials import Calculator as OurCalculator

    atoms = ase.Atoms("H2", [[0, 0, 0], [0, 0, 1.0]])
    for source in (Potential(), OurCalculator(Potential())):
        forces = predictive(source, atoms, unit="eV/Å")
        assert forces.shape == (2, 3) and forces.unit == "eV/Å" and bool((forces.stddev == 1).all())


@pytest.mark.parametrize("source", [object(), 3.0, "text", None, torch.nn.Linear(1, 1)])
def test_what_is_not_known_is_refused_with_a_list(source):
    with pytest.raises(DataError, match=r"mean, stddev|two draws"):
        predictive(source)
    if not callable(source):
        with pytest.raises(DataError, match="return_std"):
            predictive(source, torch.ones(1))
