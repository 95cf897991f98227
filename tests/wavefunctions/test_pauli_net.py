"""PauliNet starts as its reference, whose orbitals and determinants are those of quantum chemistry."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesmol.errors import DataError
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.pauli_net import PauliNet, SlaterJastrow
from bayesmol.wavefunctions.precision import double
from bayesmol.wavefunctions.training import Training


@pytest.fixture(scope="module")
def beryllium():
    spec = PauliNet(determinants=3, width=4, layers=1, virtuals=2, basis="cc-pvdz")
    return spec.build(Molecule.named("Be"), seed=0)


def test_before_training_it_is_the_reference_with_the_cusp_factor(beryllium, places):
    found = beryllium.reference
    r = places[0]
    with double():
        orbitals = np.asarray(jax.jit(jax.vmap(found.orbitals))(jnp.asarray(r)))
        sign, log = (float(part) for part in jax.jit(beryllium.log_psi)(beryllium.parameters, jnp.asarray(r)))
    total = sum(
        c * np.linalg.det(orbitals[:2][:, up]) * np.linalg.det(orbitals[2:][:, down])
        for c, up, down in zip(found.coefficients, found.up, found.down, strict=True)
    )
    square = (r**2).sum(-1)
    scale = np.sqrt((0.25 + square) / (1 + square))  # in the core of beryllium half of that outside
    cusp = 0
    for i, j in itertools.combinations(range(4), 2):
        width = np.sqrt(scale[i] * scale[j])
        slope = 0.25 if (i < 2) == (j < 2) else 0.5
        cusp -= slope * width / (1 + np.linalg.norm(r[i] - r[j]) / width)
    assert sign == np.sign(total)
    assert log == pytest.approx(np.log(abs(total)) + cusp, abs=1e-10)


def test_it_may_mix_in_empty_orbitals(beryllium):
    mixing = beryllium.parameters["mixing"][0]
    used = np.unique(beryllium.reference.up)
    assert mixing.shape == (3, len(used) + 2, 2)
    assert np.asarray(mixing).sum((1, 2)).tolist() == [2, 2, 2]
    assert beryllium.parameters["backflow"]["out"][0].shape == (8, *mixing.shape)


def test_slater_jastrow_has_no_backflow():
    spec = SlaterJastrow(width=4)
    assert (spec.backflow, spec.virtuals, spec.determinants) == (False, 0, 1)


def test_bad_settings():
    with pytest.raises(DataError, match="determinants"):
        PauliNet(determinants=0)
    with pytest.raises(DataError, match="reference"):
        PauliNet().assembled(Molecule.named("Be"), None, seed=0)


@pytest.mark.slow
def test_training_does_not_fit_what_hardly_a_walker_has_seen():
    """Small damping once gave H2 a small variance with a heavy tail (Pareto k 0.8): local energies off by 1 Ha."""
    training = Training(minutes=None, steps=700, window=None)
    energy = PauliNet(training=training).fit(Molecule.named("H2"), seed=0).energy(draws=1000, seed=1)
    assert energy.verdict == "ok"
    assert float(energy.variance.value) < 3e-4
