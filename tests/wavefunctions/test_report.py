"""What a page says of helium with a simple wavefunction: shares, bounds, cusps, and all plots."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from bayesmol.wavefunctions.ansatz import Trial
from bayesmol.wavefunctions.energy import Energy
from bayesmol.wavefunctions.exact_energies import ExactEnergy
from bayesmol.wavefunctions.fitted import FittedWavefunction
from bayesmol.wavefunctions.history import History
from bayesmol.wavefunctions.log_psi import LogPsi
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.pauli_net import SlaterJastrow
from bayesmol.wavefunctions.precision import double
from bayesmol.wavefunctions.report import DISTANCES, Judged, cusp_slopes, snapshot_energies
from bayesmol.wavefunctions.starting import start
from bayesmol.wavefunctions.training import Trained
from bayesmol.wavefunctions.walkers import MALA


def log_psi(parameters, r):
    """Exact cusps and one parameter, the range of the correlation."""
    apart = jnp.linalg.norm(r[0] - r[1])
    width = jnp.exp(parameters["width"])
    return LogPsi(jnp.ones(()), -2 * jnp.sum(jnp.linalg.norm(r, axis=-1)) - 0.5 / (width * (1 + width * apart)))


def helium():
    """A wavefunction that looks trained."""
    molecule = Molecule.named("He")
    with double():
        parameters = {"width": jnp.asarray(-1.0)}
        walkers = MALA().initial(start(molecule, 32, seed=0))
        x = np.arange(1.0, 101.0)
        ones = np.ones(100)
        history = History(x / 10, -2.89 + np.exp(-x / 9), 1 / x, 0.6 * ones, 0 * ones, 0 * x.astype(int), ones > 0)
        vectors = np.array([[1.0], [0.0], [-0.5]])
        trained = Trained(parameters, walkers, history, vectors, np.array([1, 2, 3]), "all steps were taken", 10.0)
        return FittedWavefunction(SlaterJastrow(), Trial(molecule, log_psi, parameters), trained, 0)


def constant(value, error=1e-4):
    """An energy with this mean, of independent draws."""
    noise = np.random.default_rng(0).standard_normal((32, 200))
    local = value + error * np.sqrt(noise.size) * (noise - noise.mean())
    kinetic = 2.9 + 0.1 * noise
    return Energy.of(local, kinetic, kinetic, local - kinetic, log_density=noise, acceptance=0.6)


@pytest.fixture(scope="module")
def wavefunction():
    return helium()


def test_share_of_the_correlation(wavefunction):
    judged = Judged(wavefunction, constant(-2.8927))
    assert judged.lines == pytest.approx({"Hartree–Fock": -2.86168, "exact": -2.903724}, abs=1e-6)
    share, error = judged.correlation
    assert share == pytest.approx((2.8927 - 2.86168) / (2.903724 - 2.86168), rel=1e-4)
    assert error == pytest.approx(float(judged.energy.estimate.standard_error) / 0.042044, rel=1e-4)
    assert not judged.below_bound
    assert judged.extrapolated.verdict == "ok"


def test_an_energy_below_the_exact_one_is_noticed(wavefunction):
    assert Judged(wavefunction, constant(-2.9047)).below_bound
    assert not Judged(wavefunction, constant(-2.9047), reference=ExactEnergy(-2.9047, 0.0, "given")).below_bound


def test_an_unknown_molecule_has_no_share(wavefunction):
    judged = Judged(wavefunction, constant(-2.9), reference=ExactEnergy(-2.9, 0.0, "given"))
    assert judged.hartree_fock is None
    assert judged.correlation is None


def test_cusps_of_a_function_that_has_them(wavefunction):
    positions = np.asarray(start(wavefunction.molecule, 64, seed=1))
    slopes = cusp_slopes(wavefunction.trial, wavefunction.parameters, positions)
    assert list(slopes) == ["electron and He", "electrons of different spins"]
    for slope, limit in slopes.values():
        assert slope[0] == pytest.approx(limit, abs=3e-3)
    # d/dr of −½/(w(1 + w r)) is ½/(1 + w r)², less the curvature of the nuclear part, which is of order r.
    assert slopes["electrons of different spins"][0][0] < 0.5


def test_cusp_of_the_same_spin():
    molecule = Molecule(np.array([2]), np.zeros((1, 3)), spin=2)

    def node(parameters, r):
        apart = jnp.linalg.norm(r[0] - r[1])
        value = (r[0, 0] - r[1, 0]) * (1 + apart / 4)
        return LogPsi(jnp.sign(value), jnp.log(jnp.abs(value)))

    slopes = cusp_slopes(Trial(molecule, node, ()), (), np.asarray(start(molecule, 64, seed=1)))
    slope, limit = slopes["electrons of same spin"]
    assert limit == 0.25
    assert np.allclose(slope, 0.25 / (1 + DISTANCES / 4))


def test_snapshots_are_evaluated_at_their_parameters(wavefunction):
    places = np.asarray(start(wavefunction.molecule, 32, seed=2))
    found = snapshot_energies(wavefunction, draws=40, seed=3, walkers=places)
    variances = [float(energy.variance.value) for energy in found]
    assert len(found) == 3
    assert found[0].local.shape == (32, 40)
    assert variances[0] > variances[2]


def test_all_plots_are_made(wavefunction):
    snapshots = [constant(-2.89), constant(-2.88, 2e-4), constant(-2.86, 3e-4)]
    judged = Judged(wavefunction, constant(-2.8927), snapshots)
    names = [name for name, _ in judged.figures(seed=0)]
    assert names == ["training", "histogram", "densities", "cusps", "autocorrelation", "extrapolation"]


def test_extrapolation_takes_one_run(wavefunction):
    snapshots = [constant(-2.89), constant(-2.88, 2e-4), constant(-2.86, 3e-4)]
    found = Judged(wavefunction, constant(-2.8927), snapshots).extrapolated
    assert len(found.energies.value) == len(snapshots) + 1
    assert torch.isfinite(found.energies.value).all()
