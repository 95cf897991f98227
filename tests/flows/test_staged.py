"""Objectives in turn: each goes on where the one before ended, and so does its record."""

import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.flows.couplings import Couplings
from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.objectives import ForwardKL, ReverseKL
from bayesmol.flows.optimisation import Optimisation
from bayesmol.flows.staged import InTurn

DENSITY = BoltzmannDensity(lambda x: ((x - 1) / 0.5).square().sum(1) / 2, 2)
SHORT = Optimisation(steps=12, batch=64, checks=3)
CIRCULAR = torch.zeros(2, dtype=torch.bool)


def flow():
    return Couplings(layers=2, width=8, bins=4).build(CIRCULAR, seed=0)


def samples():
    return 1 + 0.5 * torch.randn(200, 2, generator=torch.Generator().manual_seed(0))


def test_steps_go_on_counting():
    objective = InTurn((ForwardKL(optimisation=SHORT), ReverseKL(optimisation=SHORT)))
    training = objective.fit(flow(), DENSITY, samples(), seed=0)
    assert training.steps == 24
    steps = [step for step, _ in training.loss]
    assert steps == sorted(steps)
    assert steps[-1] > 12


def test_a_second_run_reads_both_checkpoints(tmp_path):
    objective = InTurn((ForwardKL(optimisation=SHORT), ReverseKL(optimisation=SHORT)))
    first, second = flow(), flow()
    objective.fit(first, DENSITY, samples(), seed=0, checkpoint=tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.0", "run.1"]
    objective.fit(second, DENSITY, samples(), seed=0, checkpoint=tmp_path / "run")
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_nothing_to_do_is_refused():
    with pytest.raises(DataError, match="objectives"):
        InTurn(())
