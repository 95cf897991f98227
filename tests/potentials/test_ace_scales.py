"""Noise and prior amplitude from left-out structures, by covariances of labels or of weights."""

from dataclasses import replace

import pytest
import torch

from bayesmol.inference.conjugate import LeftOut
from bayesmol.potentials.ace_rows import ENERGY, FORCE, all_rows
from bayesmol.potentials.ace_scales import (
    DualJudge,
    PrimalJudge,
    dual_posterior,
    fitted_scales,
    inflation,
    left_out_of,
    members_of,
)

close = torch.testing.assert_close
JUDGED = torch.tensor([1, 4, 7])


@pytest.fixture(scope="module")
def model(potential):
    return potential.model


@pytest.fixture(scope="module")
def rows(model, ethanol):
    return all_rows(model, ethanol[0])


def primal_judge(model, rows, judged=JUDGED):
    white, noise = rows.whitened(model), rows.noise(model)
    gram, moment = (white / noise[:, None]).T @ white, white.T @ (rows.targets / noise)
    return PrimalJudge(model, rows, gram, moment, members_of(rows, judged))


def same(first, second):
    assert torch.equal(first.judged, second.judged)
    close(first.residual, second.residual, rtol=1e-6, atol=1e-6)
    close(first.variance[first.judged], second.variance[first.judged], rtol=1e-6, atol=1e-9)
    close(first.score, second.score, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize(("shift", "log_amplitude"), [(0.0, 0.0), (0.7, 0.0), (-0.5, 1.0), (0.3, -1.2)])
def test_both_judges_agree(model, rows, shift, log_amplitude):
    dual, primal = DualJudge.of(model, rows, JUDGED), primal_judge(model, rows)
    same(primal.left_out(shift, log_amplitude), dual.left_out(shift, log_amplitude))


def test_judges_agree_with_standard_errors(model, rows):
    rows = replace(rows, errors=torch.full_like(rows.errors, 0.05))
    same(primal_judge(model, rows).left_out(0.0, 0.4), DualJudge.of(model, rows, JUDGED).left_out(0.0, 0.4))


def test_moved_scales_are_those_of_the_moved_model(model, rows):
    moved = replace(model, log_noise=model.log_noise + 0.4, log_prior=model.log_prior + 0.3)
    want = DualJudge.of(moved, rows, JUDGED).left_out(0.0, 0.0)
    same(DualJudge.of(model, rows, JUDGED).left_out(0.4, 0.6), want)
    close(primal_judge(model, rows).posterior(0.4, 0.6).mean, dual_posterior(moved, rows).mean, rtol=1e-5, atol=1e-6)


def test_left_out_of_equals_brute_force(model, rows):
    found = left_out_of(dual_posterior(model, rows), model, rows, members_of(rows, JUDGED))
    for group in JUDGED.tolist():
        own = rows.group == group
        others = replace(rows, **{name: getattr(rows, name)[~own] for name in vars(rows)})
        posterior = dual_posterior(model, others)
        white = rows.whitened(model)[own]
        close(found.residual[own], rows.targets[own] - white @ posterior.mean, rtol=0, atol=5e-5)
        close(found.variance[own], posterior.variance(white) + rows.noise(model)[own], rtol=1e-4, atol=1e-7)


def test_only_the_wanted_structures_are_judged(model, rows):
    found = DualJudge.of(model, rows, JUDGED).left_out(0.0, 0.0)
    assert torch.equal(found.judged, torch.isin(rows.group, JUDGED))
    assert torch.equal(found.score.nonzero()[:, 0], JUDGED)


@pytest.mark.parametrize("offset", [-1.5, 0.0, 2.0])
def test_fitted_scales_standardise_left_out_forces(model, rows, offset):
    wrong = replace(model, log_noise=model.log_noise + offset, log_prior=model.log_prior - 1.0)
    found = fitted_scales(wrong, DualJudge.of(wrong, rows, JUDGED))
    left = DualJudge.of(found, rows, JUDGED).left_out(0.0, 0.0)
    picked = left.judged & (rows.kind == FORCE)
    assert float((left.residual[picked].square() / left.variance[picked]).mean()) == pytest.approx(1, rel=0.01)


def test_fitted_scales_standardise_beside_standard_errors(model, rows):
    rows = replace(rows, errors=torch.full_like(rows.errors, 0.02))
    found = fitted_scales(model, DualJudge.of(model, rows, JUDGED))
    left = DualJudge.of(found, rows, JUDGED).left_out(0.0, 0.0)
    picked = left.judged & (rows.kind == FORCE)
    assert float((left.residual[picked].square() / left.variance[picked]).mean()) == pytest.approx(1, rel=0.05)


def test_energies_alone_are_judged_by_their_likelihood(model, ethanol):
    rows = all_rows(model, replace(ethanol[1], forces=None, has_forces=None))
    wrong = replace(model, log_noise=model.log_noise + 4)
    everyone = torch.arange(len(ethanol[1]))
    found = fitted_scales(wrong, DualJudge.of(wrong, rows, everyone))
    scores = [float(DualJudge.of(m, rows, everyone).left_out(0.0, 0.0).score.sum()) for m in (wrong, found)]
    assert scores[1] < scores[0] - 1


class Slanted:
    """A judge whose left-out forces get better by a steady factor with less noise."""

    def __init__(self, rows, slope, frames):
        self.rows = replace(rows, kind=torch.full_like(rows.kind, FORCE))
        self.members = [(torch.arange(frames), torch.zeros(frames, 1, dtype=torch.long))]
        self.slope = slope

    def left_out(self, shift, log_amplitude):
        ones = torch.ones(len(self.rows.kind), dtype=torch.float64)
        return LeftOut(torch.exp(ones * self.slope * shift), ones, ones[:0], ones.bool())


@pytest.mark.parametrize(
    ("slope", "frames", "want"), [(0.05, 10, -3.5), (0.05, 200, -4.2), (0.0, 10, -0.7), (-0.03, 10, 1.4)]
)
def test_few_frames_do_not_choose_an_extreme_noise(model, rows, slope, frames, want):
    """The minimum of 3 · frames · slope · shift + ((shift + 0.7) / 1.4)² / 2 on the grid, by hand."""
    found = fitted_scales(model, Slanted(rows, slope, frames))
    moved = found.log_noise[0] - model.log_noise[0] - (found.log_prior[0] - model.log_prior[0])
    assert float(moved) == pytest.approx(want, abs=1e-9)


def test_inflation_is_a_shrunken_mean_square(rows):
    """Energies of three judged structures that are wrong by twice their error bar, beside ten at one."""
    ones = torch.ones(len(rows.kind), dtype=torch.float64)
    found = LeftOut(2 * ones, ones, ones[:0], ones.bool())
    assert inflation(found, rows, JUDGED).tolist() == pytest.approx([(3 * 4 + 10) / 13, 1.0])
    without = rows.kind == ENERGY
    alone = replace(rows, **{name: getattr(rows, name)[without] for name in vars(rows)})
    assert inflation(found, alone, JUDGED).tolist() == [1.0, 1.0]
