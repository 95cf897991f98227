import math
import sys
import types

import arviz
import numpy as np
import pytest
import torch
import xarray

from bayesmol.errors import DataError, DependencyError, ShapeError
from bayesmol.posterior import Draws, Gaussian
from bayesmol.posterior.arviz import LeaveOneOut, comparison, leave_one_out, pareto_smoothed


def data_tree(groups):
    """What ``from_dict`` of ArviZ 1.x makes of groups of arrays."""
    return xarray.DataTree.from_dict(
        {
            group: xarray.Dataset({k: (("chain", "draw", *map(str, range(v.ndim - 2))), v) for k, v in arrays.items()})
            for group, arrays in groups.items()
        }
    )


MODERN = int(arviz.__version__.split(".")[0]) >= 1
INSTALLED = types.SimpleNamespace(from_dict=arviz.from_dict, loo=arviz.loo, psislw=getattr(arviz, "psislw", None))


def installed_data(log_likelihood):
    """Data of the installed ArviZ."""
    groups = {"posterior": {"x": log_likelihood[..., :1]}, "log_likelihood": {"y": log_likelihood}}
    return INSTALLED.from_dict(groups) if MODERN else INSTALLED.from_dict(**groups)


def loo_of_a_tree(data, *, pointwise, reff):
    """The interface of ``loo`` of ArviZ 1.x: the same figures by other names."""
    found = INSTALLED.loo(installed_data(data["log_likelihood"]["y"].values), pointwise=pointwise, reff=reff)
    values = found.elpd_i if MODERN else found.loo_i
    return types.SimpleNamespace(elpd_i=values, pareto_k=found.pareto_k, scale="log")


@pytest.fixture(params=["installed", "1.0.0"])
def version(request, monkeypatch):
    """The installed ArviZ, and the interface of 1.x, which needs Python 3.12."""
    if request.param != "installed":
        later = types.SimpleNamespace(__version__=request.param, from_dict=data_tree, loo=loo_of_a_tree)
        monkeypatch.setitem(sys.modules, "arviz", later)
        if not MODERN:
            stats = types.SimpleNamespace(psislw=lambda likelihood: INSTALLED.psislw(-likelihood))
            monkeypatch.setitem(sys.modules, "arviz_stats", types.ModuleType("arviz_stats"))
            monkeypatch.setitem(sys.modules, "arviz_stats.base", types.SimpleNamespace(array_stats=stats))


@pytest.mark.usefixtures("version")
def test_draws_keep_chains_weights_and_unit(normal):
    draws = Draws(normal(4, 50, 3), normal(4, 50), unit="Ha")
    data = draws.to_arviz("energy")
    np.testing.assert_array_equal(data["posterior"]["energy"].values, draws.values.numpy())
    np.testing.assert_array_equal(data["sample_stats"]["log_weight"].values, draws.log_weights.numpy())
    assert data["posterior"]["energy"].attrs["units"] == "Ha"
    assert data["posterior"]["energy"].dims[:2] == ("chain", "draw")


def test_arviz_diagnostics_run(normal):
    data = Draws(normal(4, 500, 3), unit="Ha").to_arviz("energy")
    assert float(arviz.rhat(data)["energy"].max()) < 1.02


def test_a_gaussian_is_drawn(normal):
    gaussian = Gaussian(normal(3), normal(3).square(), unit="eV")
    values = gaussian.to_arviz(size=200, seed=1)["posterior"]["value"].values
    np.testing.assert_array_equal(values[0], gaussian.sample(200, seed=1).numpy())


def test_without_arviz_the_error_names_the_remedy(normal, monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(DependencyError, match=r"arviz.*pip install bayesmol"):
        Draws(normal(1, 5), unit="eV").to_arviz()


def normal_model(normal, rows=30, draws=4000, prior=100.0):
    """Labels of a normal law of unknown mean, draws of its log-likelihood, and the exact leave-one-out densities."""
    labels = normal(rows) + 1
    variance = 1 / (rows + 1 / prior**2)
    mean = labels.sum() * variance + variance**0.5 * normal(4, draws // 4)
    likelihood = torch.distributions.Normal(mean.unsqueeze(-1), 1.0).log_prob(labels)
    left = 1 / (rows - 1 + 1 / prior**2)
    exact = torch.distributions.Normal((labels.sum() - labels) * left, (1 + left) ** 0.5).log_prob(labels)
    return likelihood, exact


@pytest.mark.usefixtures("version")
def test_leave_one_out_is_the_closed_form(normal):
    likelihood, exact = normal_model(normal)
    found = leave_one_out(likelihood)
    torch.testing.assert_close(found.pointwise, exact, atol=0.02, rtol=0)
    assert found.reliable and float(found.pareto_k.max()) < 0.7 and found.limit == 0.7
    assert abs(float(found.total.value - exact.sum())) < float(found.total.standard_error) / 20
    assert float(found.total.standard_error) == pytest.approx(float((30 * exact.var()).sqrt()), rel=0.01)
    assert "of 30 units" in str(found) and "nat" in str(found)


@pytest.mark.skipif(MODERN, reason="ArviZ 1.x has one scale")
def test_the_scale_of_arviz_does_not_matter(normal):
    likelihood, _ = normal_model(normal, draws=400)
    with arviz.rc_context({"stats.ic_scale": "deviance"}):
        scaled = leave_one_out(likelihood)
    torch.testing.assert_close(scaled.pointwise, leave_one_out(likelihood).pointwise)


def test_rows_of_a_structure_are_left_out_together(normal):
    likelihood, _ = normal_model(normal)
    groups = torch.arange(30) // 3
    found = leave_one_out(likelihood, groups)
    together = leave_one_out(likelihood.unflatten(2, (10, 3)).sum(-1))
    assert torch.equal(found.pointwise, together.pointwise) and len(found.pareto_k) == 10


def test_densities_that_do_not_depend_on_the_draw_need_no_weights(normal):
    likelihood, _ = normal_model(normal)
    fixed = normal(5).expand(4, 1000, 5)
    found = leave_one_out(torch.cat([likelihood, fixed], 2))
    torch.testing.assert_close(found.pointwise[30:], fixed[0, 0])
    assert bool((found.pareto_k[30:] == -math.inf).all()) and found.reliable
    torch.testing.assert_close(found.pointwise[:30], leave_one_out(likelihood).pointwise)


def test_an_influential_label_is_called_unreliable(normal):
    labels = torch.cat([normal(10), torch.tensor([15.0], dtype=torch.float64)])
    mean = labels.mean() + normal(1, 2000) / 11**0.5
    found = leave_one_out(torch.distributions.Normal(mean.unsqueeze(-1), 1.0).log_prob(labels))
    assert not found.reliable and int(found.pareto_k.argmax()) == 10
    assert "Pareto k > 0.70 for 1 units" in str(found)


def made(pointwise):
    return LeaveOneOut(pointwise, torch.zeros_like(pointwise), 0.7)


def test_comparison_is_paired(normal):
    common, offset = 5 * normal(200), 0.1 * normal(200) + 0.1
    models = {"worse": made(common - offset), "first": made(common)}
    found = comparison(models)
    assert found.names == ("first", "worse") and found.best == "first" and found.behind == ("worse",)
    assert float(found.leads.value[1]) == pytest.approx(float(offset.sum()))
    assert float(found.leads.standard_error[1]) == pytest.approx(float((200 * offset.var()).sqrt()))
    assert float(found.totals.standard_error[0]) > 10 * float(found.leads.standard_error[1])
    assert "better than all others: first" in str(found)
    same = comparison({"a": made(common), "b": made(common - 2 * normal(200) + 0.01)})
    assert same.best is None and same.behind == () and "clearly behind: none" in str(same)
    close = comparison({"a": made(common), "b": made(common - 0.01)})
    assert float(close.leads.value[1]) == pytest.approx(2) and close.best is None, "a small lead is none"


# 2026-11-21, arviz 0.23 uses an argument that pandas 3.1 deprecates.
@pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")
def test_stacking_weights_are_those_of_arviz(normal):
    likelihoods = {name: normal_model(normal, 60, 800)[0] + shift for name, shift in {"a": 0.0, "b": -0.05}.items()}
    likelihoods["c"] = likelihoods["a"].flip(2) + 0.03
    found = comparison({name: leave_one_out(value) for name, value in likelihoods.items()})
    data = {name: installed_data(value.numpy()) for name, value in likelihoods.items()}
    table = arviz.compare(data, method="stacking").loc[list(found.names)]
    np.testing.assert_allclose(found.weights.numpy(), table["weight"].to_numpy(dtype=float), atol=0.01)
    assert float(found.weights.sum()) == pytest.approx(1)


def test_stacking_of_joint_densities_does_not_underflow(normal):
    first = -2000 + normal(40)
    found = comparison({"a": made(first), "b": made(first + torch.where(torch.arange(40) % 2 == 0, 3.0, -3.0))})
    torch.testing.assert_close(found.weights, torch.full((2,), 0.5, dtype=torch.float64), atol=0.02, rtol=0)


def test_bad_likelihoods(normal):
    with pytest.raises(ShapeError, match="at least 100 draws"):
        leave_one_out(normal(1, 50, 3))
    with pytest.raises(ShapeError, match="groups"):
        leave_one_out(normal(1, 200, 3), torch.arange(4))
    with pytest.raises(DataError, match="finite densities"):
        leave_one_out(normal(1, 200, 3) / 0)
    with pytest.raises(DataError, match="at least two"):
        comparison({"a": made(normal(4))})
    with pytest.raises(DataError, match="same units"):
        comparison({"a": made(normal(4)), "b": made(normal(5))})


@pytest.mark.usefixtures("version")
def test_smoothed_weights_keep_body_scale_and_zeros(normal):
    """The weights of a normal target at draws of half its deviation have the tail index 3/4."""
    x = 0.5 * normal(4000)
    raw = 1.5 * x.square() + 500
    raw[:3] = -math.inf
    smooth, k = pareto_smoothed(raw)
    assert k == pytest.approx(0.75, abs=0.2)
    assert torch.equal(torch.isinf(smooth), torch.isinf(raw))
    tail = int(3 * 4000**0.5) + 2
    body = raw.argsort()[3:-tail]
    torch.testing.assert_close(smooth[body], raw[body], rtol=0, atol=1e-9)
    assert float(smooth.max()) <= float(raw.max()) + 1e-9
    order = raw.argsort()[-tail:]
    assert bool((smooth[order].diff() >= -1e-9).all())


def test_smoothed_weights_without_a_tail(normal):
    few = normal(24)
    assert pareto_smoothed(few) == (few, math.inf)
    assert pareto_smoothed(torch.ones(100))[1] == -math.inf
    for bad in (torch.tensor([0.0, math.nan]), torch.tensor([math.inf, 0.0]), torch.full((30,), -math.inf)):
        with pytest.raises(DataError, match="log_weights"):
            pareto_smoothed(bad)
