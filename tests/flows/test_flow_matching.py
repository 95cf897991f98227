import math

import pytest
import torch

from bayesmol.errors import DataError, ShapeError
from bayesmol.flows.continuous import Continuous
from bayesmol.flows.coordinates import MeanFree
from bayesmol.flows.couplings import Couplings
from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.flow_matching import FlowMatching, aligned
from bayesmol.flows.optimisation import Optimisation
from bayesmol.flows.particle_densities import dw4
from bayesmol.inference.metropolis import MALA
from bayesmol.posterior.estimate import kish

CHEAP = Continuous(radial=12, hidden=16, steps=8)


def _pair(x):
    """Two particles at a distance of about 3 in a plane."""
    distance = (x[:, :2] - x[:, 2:]).norm(dim=1)
    return 5 * (distance - 3).square()


@pytest.fixture
def density():
    start = torch.tensor([[-1.5, 0.0, 1.5, 0.0]], dtype=torch.float64)
    return BoltzmannDensity(_pair, 4, shape=(2, 2), space=2, start=start)


@pytest.fixture
def samples(normal):
    """Draws of the density: the distance has the law r exp(−5 (r − 3)²): a normal one, kept in proportion to r."""
    r = 3 + normal(4000) / 10**0.5
    keep = torch.rand(4000, generator=torch.Generator().manual_seed(0)) < r / 6
    angle = 10 * normal(4000)
    half = r[:, None] / 2 * torch.stack([angle.cos(), angle.sin()], 1)
    return torch.cat([half, -half], 1)[keep]


def test_a_turned_and_permuted_copy_is_brought_back(normal):
    latent = normal(6, 5, 3)
    turn, _ = torch.linalg.qr(normal(3, 3))
    near = latent @ torch.linalg.matrix_exp(0.05 * (turn - turn.T))
    shuffled = near[:, [3, 1, 4, 0, 2]]
    torch.testing.assert_close(aligned(latent, shuffled), latent, rtol=0, atol=1e-10)


def test_alignment_brings_nearer_and_keeps_the_shape(normal):
    latent, x = normal(20, 6, 3), normal(20, 6, 3)
    found = aligned(latent, x)
    before, after = ((latent - rows).square().sum((1, 2)) for rows in (x, found))
    assert bool((after < before).all())
    distances = [torch.cdist(rows, rows).flatten(1).sort(1).values for rows in (x, found)]
    torch.testing.assert_close(distances[0], distances[1], rtol=0, atol=1e-6)


def test_more_turns_never_take_it_away(normal):
    latent, x = normal(20, 6, 3), normal(20, 6, 3)
    once, often = (((latent - aligned(latent, x, turns=k)).square().sum((1, 2))) for k in (1, 5))
    assert bool((often <= once + 1e-9).all())


def test_the_flow_learns_the_density_of_its_samples(density, samples):
    flow = CHEAP.build(2, 2, seed=0)
    training = FlowMatching(Optimisation(steps=400, batch=128, rate=1e-2, average=50.0)).fit(
        flow, density, samples, seed=0
    )
    x, log_q = flow.requires_grad_(False).sample(2000, seed=1)
    log_w = -density.reduced_energy(x) - log_q
    assert float(kish(log_w)) / 2000 > 0.7
    # In orthonormal coordinates the distance is √2 times the length of the vector.
    r = torch.linspace(0, 8, 8001, dtype=torch.float64)
    exact = math.log(float(torch.trapezoid(math.pi * r * (-5 * (r - 3).square()).exp(), r)))
    assert float(log_w.logsumexp(0)) - math.log(2000) == pytest.approx(exact, abs=0.06)
    assert training.steps == 400 and training.energy_evaluations == 0 and "weights" in training.notes[0]


def test_the_scale_is_that_of_the_samples(density, samples):
    flow = CHEAP.build(2, 2, seed=0)
    FlowMatching(Optimisation(steps=1, batch=4)).fit(flow, density, samples + 5.0, seed=0)
    y, _ = MeanFree(2, 2)(samples)
    assert float(flow.transform.log_scale.detach().exp()) == pytest.approx(float(y.square().mean().sqrt()), rel=1e-6)


def test_the_energy_alone_suffices(density):
    flow = CHEAP.build(2, 2, seed=0)
    matching = FlowMatching(
        Optimisation(steps=200, batch=128, rate=1e-2, average=50.0),
        rounds=2,
        size=500,
        chains=MALA(step=0.2, warmup=60, draws=5, thin=5),
    )
    training = matching.fit(flow, density, seed=0)
    x, log_q = flow.requires_grad_(False).sample(1000, seed=1)
    assert float(kish(-density.reduced_energy(x) - log_q)) > 400
    assert training.energy_evaluations > 500


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(density, samples, tmp_path):
    matching = FlowMatching(Optimisation(steps=12, batch=16))
    flows = [CHEAP.build(2, 2, seed=0) for _ in range(3)]
    matching.fit(flows[0], density, samples, seed=3)
    matching.fit(flows[1], density, samples, seed=3, checkpoint=tmp_path / "state")
    matching.fit(flows[2], density, samples, seed=9, checkpoint=tmp_path / "state")
    x = samples[:5].float()
    for flow in flows[1:]:
        assert float(flow.transform.field.strength.detach().abs().max()) > 0
        assert torch.equal(flow.log_prob(x), flows[0].log_prob(x))


@pytest.mark.slow
def test_it_learns_more_from_a_thousand_configurations_than_a_flow_that_knows_no_symmetry():
    """Density of fresh draws of DW4; the flow of couplings is stopped where it is best on them, which favours it."""
    density, coordinates = dw4(), MeanFree(4, 2)
    walk = MALA(warmup=1000, draws=8, thin=200).fit(density, density.start.repeat(64, 1), seed=0)
    rows = walk.values.flatten(0, 1)[torch.randperm(2048, generator=torch.Generator().manual_seed(0))]
    train, test = rows[:1000], rows[1000:]
    flow = Continuous(radial=64, hidden=64, steps=16).build(4, 2, seed=0)
    FlowMatching(Optimisation(steps=1000, batch=256, rate=3e-3)).fit(flow, density, train, seed=0)
    with torch.no_grad():
        equivariant = -float(flow.log_prob(test.float()).mean())
    y = coordinates(rows)[0].float()
    scale = y[:1000].std()
    other = Couplings(layers=8, width=64).build(coordinates.circular, seed=0)
    adam, best, source = torch.optim.Adam(other.parameters(), 1e-3), math.inf, torch.Generator().manual_seed(0)
    for step in range(1500):
        batch = y[:1000][torch.randint(1000, (256,), generator=source)] / scale
        loss = -other.log_prob(batch).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        if step % 50 == 49:
            with torch.no_grad():
                best = min(best, -float((other.log_prob(y[1000:] / scale) - 6 * scale.log()).mean()))
    assert equivariant < best - 0.2


def test_bad_input_is_refused(density, samples):
    flow, matching = CHEAP.build(2, 2, seed=0), FlowMatching(Optimisation(steps=1))
    with pytest.raises(ShapeError, match=r"\(points, 4\)"):
        matching.fit(flow, density, samples[:, :3], seed=0)
    with pytest.raises(DataError, match="finite"):
        matching.fit(flow, density, samples * math.nan, seed=0)
    with pytest.raises(DataError, match="start"):
        matching.fit(flow, BoltzmannDensity(_pair, 4), seed=0)
    with pytest.raises(DataError, match="rounds"):
        FlowMatching(rounds=0)
