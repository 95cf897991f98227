"""PauliNet starts as its reference, whose orbitals and determinants are those of quantum chemistry."""

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
    distance = np.linalg.norm(r[:, None] - r, axis=-1)
    unlike = sum(0.5 / (1 + distance[i, j]) for i in (0, 1) for j in (2, 3))
    like = 0.25 / (1 + distance[0, 1]) + 0.25 / (1 + distance[2, 3])
    assert sign == np.sign(total)
    assert log == pytest.approx(np.log(abs(total)) - unlike - like, abs=1e-10)


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
