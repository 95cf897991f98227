"""Networks: a stack is its members, noise that depends on the input is learned, predictions are functions."""

import pytest
import torch

SPECIFICATIONS = [("DeepEnsemble", {"members": 3}), ("Dropout", {"masks": 8}), ("LastLayerLaplace", {}), ("Swag", {})]


@pytest.fixture
def networks(study):
    return study("calibration_networks")


@pytest.fixture
def table(normal):
    x = normal(200, 2)
    return 10 * x, 3 + 2 * (torch.sin(2 * x[:, 0]) + x[:, 1] + 0.2 * normal(200))


@pytest.mark.parametrize(("name", "settings"), SPECIFICATIONS)
def test_contract(networks, table, name, settings):
    inputs, targets = table
    model = getattr(networks, name)(units=20, steps=150, **settings)
    fitted = model.fit(inputs[:150], targets[:150], seed=4, unit="eV")
    state = torch.random.get_rng_state()
    posterior = fitted.predict(inputs[150:])
    assert posterior.unit == "eV" and posterior.mean.dtype == torch.float64 and bool((posterior.variance > 0).all())
    errors = targets[150:] - posterior.mean
    assert float(errors.std()) < 0.5 * float(targets[150:].std()), "better than a constant"
    torch.testing.assert_close(fitted.predict(inputs[150:160]).mean, posterior.mean[:10], rtol=1e-5, atol=1e-5)
    assert torch.equal(fitted.predict(inputs[150:]).mean, posterior.mean), "a prediction is a function"
    again = model.fit(inputs[:150], targets[:150], seed=4, unit="eV").predict(inputs[150:])
    assert torch.equal(again.mean, posterior.mean), "same seed, same result"
    other = model.fit(inputs[:150], targets[:150], seed=5, unit="eV").predict(inputs[150:])
    assert not torch.equal(other.mean, posterior.mean)
    assert torch.equal(torch.random.get_rng_state(), state), "no global state"


def test_a_stack_is_its_members(networks, source):
    layers = networks.stack([3, 5, 4, 2], 2, source)
    x = torch.randn(6, 3, generator=source)
    together = networks.outputs(layers, x.expand(2, -1, -1))
    for k in range(2):
        value = x
        for depth, (weight, bias) in enumerate(zip(layers[::2], layers[1::2], strict=True)):
            value = value @ weight[k] + bias[k]
            value = value.relu() if depth < 2 else value
        torch.testing.assert_close(together[k], value)


def test_batches_go_through_all_rows(networks, source):
    seen = torch.cat(list(networks.batches(128, 2, 4, source)), dim=1)
    assert seen.shape == (2, 256)
    for member in seen:
        assert torch.equal(member[:128].sort().values, torch.arange(128)), "each row once before any comes again"
    assert not torch.equal(seen[0], seen[1])
    assert [len(rows[0]) for rows in networks.batches(10, 1, 3, source)] == [10, 10, 10]


def test_loss_is_the_density(networks, normal):
    found, y = normal(2, 7, 2), normal(2, 7)
    variance = torch.nn.functional.softplus(found[..., 1]) + networks.NOISE
    density = torch.distributions.Normal(found[..., 0], variance.sqrt()).log_prob(y)
    expected = -density.mean(-1).sum() - 2 * 0.5 * torch.log(torch.tensor(2 * torch.pi))
    torch.testing.assert_close(networks.gaussian_loss(found, y), expected, rtol=1e-6, atol=1e-6)


def test_an_ensemble_learns_where_the_noise_is(networks, normal):
    x = normal(600, 1)
    deviation = torch.where(x[:, 0] > 0, 0.5, 0.1)
    fitted = networks.DeepEnsemble(members=3, units=20, steps=300).fit(x, x[:, 0] + deviation * normal(600), seed=0)
    found = fitted.predict(torch.tensor([[-1.0], [1.0]], dtype=torch.float64)).stddev
    assert 0.05 < float(found[0]) < 0.2 and 0.35 < float(found[1]) < 0.65


def test_the_last_layer_is_a_linear_model_of_features(networks, table):
    inputs, targets = table
    posterior = networks.LastLayerLaplace(units=10, steps=100).fit(inputs, targets, seed=0).predict(inputs)
    noise = posterior.aleatoric.variance
    assert float(noise.std()) == pytest.approx(0, abs=1e-9) and bool((posterior.epistemic.variance > 0).all())
    mean_leverage = float((posterior.epistemic.variance / noise).mean()) * len(targets)
    assert 1 < mean_leverage <= 11.5, "sum of leverages: at most the number of weights"


def test_swag_spreads_as_its_path(networks, table, monkeypatch, source):
    inputs, targets = table
    steps = torch.randn(20, 2 * 10 + 10 + 10 * 2 + 2, generator=source)
    monkeypatch.setattr(networks.Swag, "_path", lambda self, layers, x, y, source: steps)
    captured = []
    monkeypatch.setattr(networks, "mixture_law", lambda layers: captured.append(layers))
    networks.Swag(units=10, layers=1, steps=1, draws=20_000).law(inputs, targets, source)
    drawn = torch.cat([part.flatten(1) for part in captured[0]], dim=1)
    torch.testing.assert_close(drawn.mean(0), steps.mean(0), rtol=0, atol=0.05)
    expected = 0.5 * steps.T.cov() + 0.5 * steps.var(0).diag()
    torch.testing.assert_close(drawn.T.cov(), expected, rtol=0, atol=0.1)
