"""Molecular dynamics of a tiny potential: what the study fills in."""

import pytest
import torch

import bayesmol as bm
from bayesmol.potentials.ace_learning import MixingSchedule
from bayesmol.report import Study


@pytest.fixture
def module(study):
    return study("potentials_md")


@pytest.fixture(scope="module")
def frames():
    return bm.data.load("rmd17/ethanol")


@pytest.fixture(scope="module")
def model(frames):
    small = bm.potentials.BayesianACE(
        cutoffs=(4.0,), channels=(4, 4, 2), degrees=(2, 2, 1), mixing=MixingSchedule(steps=2)
    )
    return small.fit(frames[:16], seed=0)


@pytest.fixture
def table():
    return Study("potentials", "md")


def test_step_cost(module, model, frames, table):
    module.step_cost(table, model, frames[20:24].structures, sizes=(1, 4), repeats=2)
    assert table.figures["ratio_predict_to_surface_4"].value > 1
    assert table.figures["surface_microseconds_per_atom_1"].unit == "µs/atom"


def test_against_ase(module, model, frames, table):
    module.against_ase(table, model, frames[20:28].structures, steps=2, seed=0)
    assert table.figures["ratio_to_ase"].value > 1
    assert table.figures["ase_microseconds_per_atom_step"].value > 0


def test_soak_of_a_certified_model(module, model, frames, table):
    certified = bm.certify(model, frames[100:250])
    module.md_soak(table, certified, frames[20:23].structures, replicas=4, steps=50, looks=2, seed=0)
    assert table.figures["steps_of_all_replicas"].value == 200
    assert table.figures["failures"].value == 0
    assert 0 <= table.figures["inside_share"].value <= 1
    assert table.figures["frames_judged"].value >= 8
    assert 30 < table.figures["temperature"].value < 900


def test_drift(module, model, frames, table):
    module.nve_drift(table, model, frames[20:21].structures, replicas=2, picoseconds=0.06, timestep=0.5, seed=0)
    assert table.figures["nve_failures"].value == 0
    figure = table.figures["nve_drift_100ps"]
    assert figure.standard_error > 0
    assert table.figures["nve_drift_100ps_largest"].value >= abs(figure.value)


def test_every_draw_has_a_wall(module, model, frames, table):
    """Any two of the nine atoms pushed to 0.3 Å: more than 10 eV, in every draw."""
    found = module.walls(table, model, frames[20:21].structures, draws=5, seed=0)
    assert found.shape == (5, 36)
    assert float(found.min()) > 10
    assert table.figures["wall_draws_above_10_ev"].value == 1
    pushed = module._pushed(frames[20:21].structures)
    nearest = torch.stack([torch.pdist(own).min() for own in pushed.positions.split(9)])
    torch.testing.assert_close(nearest, torch.full_like(nearest, 0.3))


def test_draws_side_by_side(module, model, frames, table):
    run = module.draws_soak(table, model, frames[20:21].structures, draws=3, picoseconds=0.01, seed=0)
    assert len(run.structures) == 3
    assert table.figures["draws_without_collapse"].value == 1
    assert table.figures["draws_picoseconds"].value == pytest.approx(0.01)
