"""What a type checker sees of the public names: mypy reads this file (tox -e types), and no one runs it."""

from typing import assert_type

import torch
from ase import Atoms

import bayesmol as bm


def potentials(atoms: Atoms) -> None:
    train, calibration, test = bm.data.load("rmd17/ethanol").split(50, 200, 1000)
    model = bm.potentials.BayesianACE().fit(train, seed=0)
    assert_type(model, bm.potentials.ACEPotential)
    assert_type(model.update(calibration), bm.potentials.ACEPotential)
    certified = bm.certify(model, calibration, level=0.9)
    assert_type(certified, bm.CertifiedModel)
    prediction = certified.predict(atoms)
    assert_type(prediction, bm.posterior.Prediction)
    assert_type(prediction.forces.interval(0.9), bm.posterior.Interval)
    assert_type(prediction.forces.mean, torch.Tensor)
    assert_type(test.forces, torch.Tensor | None)
    assert_type(test.has_forces, torch.Tensor)


def wavefunctions() -> None:
    wavefunction = bm.wavefunctions.PauliNet().fit(bm.wavefunctions.Molecule.named("LiH"), seed=0)
    assert_type(wavefunction, bm.wavefunctions.FittedWavefunction)
    assert_type(wavefunction.energy(seed=1), bm.wavefunctions.Energy)


def kinetics(data: bm.data.Trajectories) -> None:
    model = bm.dynamics.MarkovStateModel(lag=10, states=100).fit(data, seed=0)
    assert_type(model, bm.dynamics.FittedMarkovStateModel)
    assert_type(model.timescales(3), bm.posterior.Draws)


def densities() -> None:
    generator = bm.flows.BoltzmannGenerator(minutes=1).fit(bm.flows.double_well(), seed=0)
    assert_type(generator, bm.flows.FittedGenerator)
    assert_type(generator.sample(100, seed=1), bm.flows.BoltzmannDraws)


def wrong() -> None:
    bm.potentials.BayesianAce()  # type: ignore[attr-defined]  # a misspelt name is seen
    bm.data.load(50)  # type: ignore[arg-type]  # and so is an argument of a wrong type
