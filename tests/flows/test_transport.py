"""The dual of the constrained step against closed forms and a grid, and training that keeps all modes."""

import math

import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.flows import training
from bayesmol.flows.couplings import Couplings
from bayesmol.flows.flow import Flow
from bayesmol.flows.model_densities import double_well
from bayesmol.flows.objectives import ReverseKL
from bayesmol.flows.optimisation import Optimisation
from bayesmol.flows.transport import ConstrainedMassTransport, transported
from bayesmol.inference.importance import effective_size

LINE = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
STEP = float(LINE[1] - LINE[0])


def on_line(energy, trust, entropy, scale=2.0):
    """Multipliers for q = N(0, scale²) by quadrature instead of draws, and the next density on the line."""
    log_q = -((LINE / scale) ** 2) / 2 - math.log(scale) - 0.5 * math.log(2 * math.pi)
    # Points of a grid are draws of a uniform density: their weights as draws of q are q itself.
    lam, eta = transported(log_q, energy, log_q, trust, entropy)
    log_next = (lam * log_q - energy) / (1 + lam + eta)
    log_next = log_next - log_next.logsumexp(0) - math.log(STEP)
    return lam, eta, log_q, log_next


def moments(log_q, log_next):
    p = log_next.exp() * STEP
    divergence, after = float((p * (log_next - log_q)).sum()), -float((p * log_next).sum())
    lost = -float((log_q.exp() * log_q).sum()) * STEP - after
    return divergence, lost


@pytest.mark.parametrize(("mean", "scale"), [(3.0, 2.0), (0.0, 0.3), (-2.0, 0.5), (1.0, 4.0)])
@pytest.mark.parametrize("limits", [(0.1, 10.0), (10.0, 0.1), (0.2, 0.1)])
def test_constraints_hold_and_those_with_a_multiplier_are_tight(mean, scale, limits):
    lam, eta, log_q, log_next = on_line(((LINE - mean) / scale) ** 2 / 2, *limits)
    divergence, lost = moments(log_q, log_next)
    assert divergence <= limits[0] + 1e-4 and lost <= limits[1] + 1e-4
    assert lam < 1e-3 or divergence == pytest.approx(limits[0], abs=1e-3)
    assert eta < 1e-3 or lost == pytest.approx(limits[1], abs=1e-3)


def test_only_the_entropy_binds_in_closed_form():
    # p^(1/(1+eta)) is a Gaussian with the variance times 1 + eta; its entropy may fall by 0.1 nats.
    _, eta, _, log_next = on_line((LINE / 0.3) ** 2 / 2, 50.0, 0.1)
    scale = 2.0 * math.exp(-0.1)
    assert eta == pytest.approx((scale / 0.3) ** 2 - 1, rel=1e-3)
    assert float((log_next.exp() * LINE**2).sum()) * STEP == pytest.approx(scale**2, rel=1e-3)


def test_only_the_trust_region_binds_in_closed_form():
    # Same width: the mean moves by b of the way, and the divergence is that of two shifted Gaussians.
    lam, eta, _, _ = on_line(((LINE - 3) / 2.0) ** 2 / 2, 0.1, 5.0)
    assert eta < 1e-3
    assert 3 / (1 + lam) == pytest.approx(2.0 * math.sqrt(0.2), rel=1e-3)


def test_no_constraint_binds_near_the_target():
    lam, eta, _, _ = on_line((LINE / 1.9) ** 2 / 2, 0.3, 0.3)
    assert max(lam, eta) < 1e-6


def test_dual_is_the_maximum_over_a_grid():
    energy, trust, entropy = 10 * (LINE.abs() - 1.5) ** 2, 0.2, 0.1
    lam, eta, log_q, _ = on_line(energy, trust, entropy)
    before = -float((log_q.exp() * log_q).sum()) * STEP

    def dual(lam, eta):
        log_z = ((lam * log_q - energy) / (1 + lam + eta)).logsumexp(0) + math.log(STEP)
        return -(1 + lam + eta) * float(log_z) - lam * trust + eta * (before - entropy)

    best = dual(lam, eta)
    grid = [(a, b) for a in torch.linspace(0, 10, 21).tolist() for b in torch.linspace(0, 60, 25).tolist()]
    near = [(max(lam + a, 0), max(eta + b, 0)) for a in (-0.05, 0, 0.05) for b in (-0.05, 0, 0.05)]
    assert all(dual(*pair) <= best + 1e-6 for pair in grid + near)


def test_infinite_energies_have_no_part():
    energy = torch.where(LINE > 0, (LINE - 2) ** 2, torch.inf)
    _, _, log_q, log_next = on_line(energy, 0.8, 5.0)
    assert bool((log_next[LINE < 0] == -torch.inf).all())
    kept = log_next > -torch.inf
    p = log_next[kept].exp() * STEP
    assert float((p * (log_next - log_q)[kept]).sum()) <= 0.8 + 1e-3


def test_no_finite_energy():
    with pytest.raises(DataError, match="two finite energies"):
        transported(torch.zeros(3), torch.full((3,), math.inf), torch.zeros(3), 0.1, 0.1)


def test_bad_settings():
    with pytest.raises(DataError, match="trust"):
        ConstrainedMassTransport(trust=0.0)
    with pytest.raises(DataError, match="share"):
        ConstrainedMassTransport(share=1.0)


def small(steps, **options):
    settings = Optimisation(steps=steps, batch=64, rate=1e-2, checks=4)
    return ConstrainedMassTransport(settings, rounds=8, draws=200, held_out=16, **options)


def new(seed=0, **options) -> Flow:
    return Couplings(**{"layers": 2, "width": 16} | options).build(torch.zeros(2, dtype=torch.bool), seed=seed)


def test_resumed_training_is_bitwise_that_of_one_run(tmp_path):
    path, flow, whole = tmp_path / "state", new(layers=1), new(layers=1)
    full = small(24).fit(whole, double_well(), seed=0)

    every: list[int] = []
    write = training.write_tensors

    def written(*arguments):
        write(*arguments)
        every.append(1)
        if len(every) == 10:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "write_tensors", written)
        patch.setattr(training.time, "monotonic", iter(range(0, 10**9, 1000)).__next__)
        with pytest.raises(KeyboardInterrupt):
            small(24).fit(flow, double_well(), seed=0, checkpoint=path)
    again = new(seed=5, layers=1)
    resumed = small(24).fit(again, double_well(), seed=77, checkpoint=path)
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    assert resumed.loss == full.loss and resumed.forward_ess == full.forward_ess
    assert resumed.energy_evaluations == full.energy_evaluations
    with pytest.raises(DataError, match="checkpoint"):
        small(25).fit(again, double_well(), seed=0, checkpoint=path)


def test_with_and_without_gradients_of_the_energy():
    target = double_well()

    class Flat:
        dimension = 2

        def reduced_energy(self, x):
            return target.reduced_energy(x.detach())

    result = small(16, reverse=1.0).fit(new(), target, seed=0)
    assert result.steps == 16 and len(result.forward_ess) == 4
    result = ConstrainedMassTransport(Optimisation(steps=8), rounds=2, draws=200, held_out=0).fit(new(), Flat(), seed=0)
    assert result.forward_ess == () and result.energy_evaluations == 400


@pytest.mark.slow
def test_modes_are_kept_where_the_reverse_divergence_loses_one():
    """Two narrow wells far apart, of weights 0.3 and 0.7, seen from a base that covers both."""
    from bayesmol.flows.model_densities import gaussian_mixture

    means, scales = torch.tensor([[-2.0, 0.0], [2.0, 0.0]]), torch.tensor([0.15, 0.15])
    target = gaussian_mixture(means, scales, torch.tensor([0.3, 0.7]))
    settings, found = Optimisation(steps=800, batch=256, rate=1e-2), {}
    for name, objective in (
        ("transport", ConstrainedMassTransport(settings)),
        ("reverse", ReverseKL(settings)),
    ):
        flow = new(layers=4, width=32)
        objective.fit(flow, target, seed=0)
        with torch.no_grad():
            x, log_q = flow.sample(20_000, seed=1)
        weights = (-target.reduced_energy(x) - log_q).double()
        right = weights.softmax(0)[x[:, 0] > 0].sum()
        found[name] = float(right), effective_size(weights).fraction
    assert found["transport"][0] == pytest.approx(0.7, abs=0.05) and found["transport"][1] > 0.5
    assert abs(found["reverse"][0] - 0.7) > 0.1 or found["reverse"][1] < found["transport"][1]
