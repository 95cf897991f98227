import builtins
import importlib
import sys

import pytest
import torch

from bayesmol.acquisition.improvement import expected_improvement
from bayesmol.acquisition.information import variance_reduction
from bayesmol.acquisition.pareto import hypervolume
from bayesmol.errors import DataError, DependencyError, ShapeError
from bayesmol.posterior import Draws, Gaussian


@pytest.fixture
def bridge():
    return importlib.import_module("bayesmol.acquisition.botorch")


def joint(normal, count=12, unit="eV", noise=0.0):
    root = normal(count, count) / count**0.5
    known = root @ root.T + 0.05 * torch.eye(count).double()
    total = known + noise * torch.eye(count).double()
    return Gaussian(
        normal(count),
        total.diagonal().clone(),
        unit=unit,
        covariance=total,
        epistemic_variance=known.diagonal().clone(),
    )


def sobol(size):
    from botorch.sampling import SobolQMCNormalSampler

    return SobolQMCNormalSampler(torch.Size([size]), seed=0)


@pytest.mark.filterwarnings("ignore:.*known numerical issues")
@pytest.mark.parametrize("goal", ["minimise", "maximise"])
def test_improvement_is_botorchs(bridge, normal, goal):
    from botorch.acquisition import ExpectedImprovement, LogExpectedImprovement, qExpectedImprovement

    posterior, sign = joint(normal, noise=0.3), 1 if goal == "maximise" else -1
    model = bridge.candidate_model(posterior, goals=goal)
    inputs = bridge.choices(model).unsqueeze(1)
    ours = expected_improvement(posterior, 0.4, goal=goal)
    best = torch.tensor(sign * 0.4, dtype=torch.float64)
    torch.testing.assert_close(ExpectedImprovement(model, best)(inputs), ours, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(LogExpectedImprovement(model, best)(inputs), ours.log(), rtol=1e-9, atol=1e-9)
    drawn = qExpectedImprovement(model, best, sampler=sobol(8192))(inputs)
    torch.testing.assert_close(drawn, ours, rtol=1e-3, atol=1e-3)


def test_batches_of_candidates_are_joint(bridge, normal):
    from botorch.acquisition import qLogExpectedImprovement
    from botorch.optim import optimize_acqf_discrete

    posterior = joint(normal)
    model = bridge.candidate_model(posterior, goals="maximise")
    picked = torch.tensor([[[2.0], [5.0], [7.0]]]).double()
    found = model.posterior(picked)
    index = torch.tensor([2, 5, 7])
    want = posterior.epistemic[index]
    torch.testing.assert_close(found.mean[0, :, 0], want.mean)
    torch.testing.assert_close(found.distribution.covariance_matrix[0], want.covariance)
    value = qLogExpectedImprovement(model, 0.5, sampler=sobol(128))
    chosen, _ = optimize_acqf_discrete(value, 3, bridge.choices(model))
    assert len(set(chosen.flatten().tolist())) == 3


def test_labels_condition_exactly(bridge, normal):
    posterior = joint(normal)
    model = bridge.candidate_model([posterior, joint(normal)], goals="maximise", noise=[0.1, 0.2])
    labels = normal(4, 2, 2)
    later = model.condition_on_observations(torch.tensor([[1.0], [3.0]]).double(), labels)
    found = later.posterior(torch.tensor([[0.0], [3.0], [6.0]]).double())
    assert found.mean.shape == (4, 3, 2) and later.batch_shape == (4,)
    for output, noise in enumerate((0.1, 0.2)):
        mean, covariance = model.mean[:, output], model.covariance[output]
        known, asked = torch.tensor([1, 3]), torch.tensor([0, 3, 6])
        gain = covariance[asked][:, known] @ torch.linalg.inv(
            covariance[known][:, known] + noise**2 * torch.eye(2).double()
        )
        want = mean[asked] + (labels[..., output] - mean[known]) @ gain.T
        torch.testing.assert_close(found.mean[..., output], want)
        left = covariance[asked][:, asked] - gain @ covariance[known][:, asked]
        torch.testing.assert_close(found.variance[0, :, output], left.diagonal())
    single = later.subset_output([1]).posterior(torch.tensor([[6.0]]).double())
    torch.testing.assert_close(single.mean[:, 0, 0], found.mean[:, 2, 1])


def test_integrated_variance_is_ours(bridge, normal):
    from botorch.acquisition import qNegIntegratedPosteriorVariance

    posterior = joint(normal)
    model = bridge.candidate_model(posterior, goals="maximise", noise=0.2)
    value = qNegIntegratedPosteriorVariance(model, mc_points=bridge.choices(model))
    pairs = torch.tensor([[[0.0], [4.0]], [[7.0], [9.0]]]).double()
    root = torch.linalg.cholesky(posterior.epistemic.covariance)
    ours = [
        variance_reduction(root[pair], root.unsqueeze(1), 0.2) - posterior.epistemic.variance.mean()
        for pair in pairs[..., 0].long()
    ]
    torch.testing.assert_close(value(pairs), torch.stack(ours))


def test_exact_hypervolume_improvement_is_its_mean_over_draws(bridge, normal):
    outputs = [joint(normal, 4), joint(normal, 4, unit="")]
    observed = torch.tensor([[0.5, -0.5], [-0.2, 0.4], [-1.0, 0.8]]).double()
    reference = torch.tensor([-1.5, -1.5]).double()
    model = bridge.candidate_model(outputs, goals="maximise")
    exact = bridge.hypervolume_improvement(model, observed, reference)
    z = torch.special.ndtri(torch.quasirandom.SobolEngine(2, scramble=True, seed=3).draw(2**16, dtype=torch.float64))
    steps = observed[observed[:, 0].argsort()]
    for candidate in range(4):
        mean = torch.stack([one.mean[candidate] for one in outputs])
        spread = torch.stack([one.epistemic.stddev[candidate] for one in outputs])
        gain = (mean + spread * z - reference).clamp_min(0)
        # the union with the staircase of observed points, strip by strip
        edges = torch.cat([torch.zeros(1).double(), steps[:, 0] - reference[0], torch.tensor([99.0]).double()])
        heights = torch.cat([(steps[:, 1] - reference[1]), torch.zeros(1).double()])
        added = 0.0
        for left, right, height in zip(edges[:-1], edges[1:], heights, strict=True):
            width = (gain[:, 0].clamp_max(float(right)) - left).clamp_min(0)
            added = added + width * (gain[:, 1] - height).clamp_min(0)
        assert float(exact[candidate]) == pytest.approx(float(added.mean()), rel=1e-3, abs=1e-4)
    new = torch.cat([observed, (mean + spread * z[:1])])
    volumes = [hypervolume(points, reference, goals="maximise") for points in (new, observed)]
    assert float(added[0]) == pytest.approx(volumes[0] - volumes[1], abs=1e-9)
    assert volumes[0] == pytest.approx(bridge.hypervolume(new, reference))
    assert bridge.hypervolume(new, torch.full((2,), 9.0).double()) == 0.0


def test_draws_become_a_gaussian_and_noise_attracts_nobody(bridge, normal):
    posterior = joint(normal, 5, noise=4.0)
    model = bridge.candidate_model(posterior, goals="minimise")
    torch.testing.assert_close(model.covariance[0], posterior.epistemic.covariance)
    torch.testing.assert_close(model.mean[:, 0], -posterior.mean)
    draws = Draws(posterior.epistemic.sample(20_000, seed=0).unsqueeze(0), unit="eV")
    again = bridge.candidate_model(draws, goals="minimise")
    torch.testing.assert_close(again.covariance, model.covariance, rtol=0, atol=0.1)
    alone = Gaussian(normal(5), normal(5).square(), unit="eV")
    torch.testing.assert_close(
        bridge.candidate_model(alone, goals="maximise").covariance[0], torch.diag(alone.variance)
    )
    noisy = bridge.candidate_model(alone, goals="maximise", noise=0.3)
    inputs = bridge.choices(noisy)
    added = noisy.posterior(inputs, observation_noise=True).variance - noisy.posterior(inputs).variance
    torch.testing.assert_close(added, torch.full_like(added, 0.09))


def test_bad_input(bridge, normal):
    with pytest.raises(ShapeError, match="same candidates"):
        bridge.candidate_model([joint(normal, 3), joint(normal, 4)], goals="maximise")
    with pytest.raises(ShapeError, match="goals"):
        bridge.candidate_model(joint(normal, 3), goals=["maximise", "minimise"])
    with pytest.raises(DataError, match="up"):
        bridge.candidate_model(joint(normal, 3), goals="up")
    model = bridge.candidate_model(joint(normal, 3), goals="maximise")
    with pytest.raises(DataError, match="0 to 2"):
        model.posterior(torch.tensor([[3.0]]).double())
    with pytest.raises(ShapeError, match="last axis 1"):
        model.posterior(torch.zeros(1, 2).double())
    one = torch.zeros(1, 1).double()
    with pytest.raises(DataError, match="look ahead"):
        model.condition_on_observations(one, one)
    later = model.condition_on_observations(one, one, noise=one + 1)
    with pytest.raises(DataError, match="all labels at once"):
        later.condition_on_observations(one, one, noise=one + 1)


def test_without_botorch_the_error_names_the_extra(monkeypatch):
    name, real = "bayesmol.acquisition.botorch", builtins.__import__

    def missing(module, *rest, **options):
        if module.split(".")[0] == "botorch":
            raise ImportError(module)
        return real(module, *rest, **options)

    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(DependencyError, match=r"bayesmol\[acquisition\]"):
        importlib.import_module(name)
