"""All posteriors beside the reference: one table, rank correlations as SciPy has them, failures as notes."""

import pytest
import torch
from scipy.stats import spearmanr

import bayesmol as bm
from bayesmol.inference.langevin import StochasticHamiltonian
from bayesmol.potentials import neural_sampling
from bayesmol.potentials.network_atomic import Atomic
from bayesmol.potentials.training import Training
from bayesmol.report import Study
from bayesmol.representation.radial import RadialBasis

SMALL = Atomic(basis=RadialBasis(cutoff=3.5, size=5), degree=1, correlation=3, channels=2, hidden=(4,), width=3)


class Draws:
    """In place of the no-U-turn sampler, whose compilation is slow: a short Langevin chain of the same weights."""

    def members(self, run):
        sampler = StochasticHamiltonian(step=0.3, warmup=5, draws=8, thin=2, chains=1)
        return neural_sampling.Hamiltonian(sampler).members(run)


@pytest.fixture
def script(study):
    return study("potentials_posteriors")


def run(script, names, **given):
    study = Study("potentials", "posteriors", {})
    train, validation, test = bm.data.load("rmd17/ethanol").split(5, 4, 6)
    options = {"network": SMALL, "schedule": Training(epochs=2), "reference": Draws(), "given": given}
    return study, script.posteriors(study, (train, validation), test, names=names, **options)


def test_figures_of_each_posterior_and_a_plot(script):
    names = ("frozen-features", "laplace", "swag")
    study, plots = run(script, names, swag=neural_sampling.WeightAveraging(steps=20, warmup=2, every=2, draws=4))
    for name in ("nuts", *names):
        assert study.figures[f"{name}_force_mae"].unit == "eV/Å" and study.figures[f"{name}_force_mae"].value > 0
        assert 0 <= study.figures[f"{name}_force_coverage_90"].value <= 1
        assert study.figures[f"{name}_relative_cost"].value > 0
        assert abs(study.figures[f"{name}_rank_error"].value) <= 1
    assert {f"{name}_rank_nuts" for name in names} < study.figures.keys() and "nuts_rank_nuts" not in study.figures
    lines = next(note for note in study.notes if note.startswith("| posterior")).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["nuts", *names]
    assert len(plots["posteriors"].axes) == 2


def test_a_posterior_that_is_not_found_is_a_note(script):
    study, _ = run(script, ("swag",), swag=neural_sampling.WeightAveraging(rate=1e30, steps=4, warmup=0, every=1))
    assert any(note.startswith("swag is not found") for note in study.notes)
    assert "swag_force_mae" not in study.figures and "nuts_force_mae" in study.figures


def test_samplers_of_all_weights_hold_the_mixing(script):
    frames = bm.data.load("rmd17/ethanol").split(4, 3)
    whole = bm.potentials.neural.NeuralPotential(SMALL, training=Training(epochs=1)).run(*frames)
    held = script.fixed_mixing(whole)
    free = {name for name, value in held.energy.named_parameters() if value.requires_grad}
    assert {name for name, _ in whole.energy.named_parameters()} - free == {"network.mixing"}
    assert whole.energy.network.mixing.requires_grad and held.noise == whole.noise


def test_rank_correlation_is_that_of_scipy(script, normal):
    one, groups = normal(40, 3), torch.arange(40) // 4
    other = one + normal(40, 3)
    found = script.rank_correlation(one, other, groups, 0)
    assert float(found.value) == pytest.approx(spearmanr(one.flatten(), other.flatten()).statistic, abs=1e-12)
    assert 0.02 < float(found.standard_error) < 0.15
    assert float(script.rank_correlation(one, one.exp(), groups, 0).value) == pytest.approx(1.0)


def test_ranks_within_strata_see_no_difference_between_them(script, normal):
    kinds, groups = torch.arange(600) % 2, torch.arange(600) // 6
    level = 10.0 * kinds[:, None].double()
    one, other = level + normal(600, 3), level + normal(600, 3)
    assert float(script.rank_correlation(one, other, groups, 0).value) > 0.7
    assert abs(float(script.rank_correlation(one, other, groups, 0, strata=kinds).value)) < 0.1
    found = script.rank_correlation(one, one + 100 * level, groups, 0, strata=kinds)
    assert float(found.value) == pytest.approx(1.0)
