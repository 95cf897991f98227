import math

import pytest
import scoringrules
import torch

from bayesmol.potentials.neural_data import Batch
from bayesmol.potentials.training_loss import error_loss, probability_loss
from bayesmol.representation.design import Design


def planted(heads=1, structures=3, seed=0):
    """Outputs and labels of structures with two atoms."""
    source = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=source, dtype=torch.float64)

    environment = type("Structure", (), {"structure": torch.arange(structures).repeat_interleave(2)})()
    ones = torch.ones(structures).double()
    labels = {"energies": normal(structures), "forces": normal(2 * structures, 3), "virials": normal(structures, 3, 3)}
    masks = {"has_energies": ones.clone(), "has_forces": ones.clone(), "has_virials": 0 * ones}
    batch = Batch(environment, torch.full((structures,), 2), **labels, **masks)
    found = Design(normal(structures, heads), normal(6 * structures, heads), None, normal(2 * structures, heads), None)
    return found, batch


def test_error_loss_is_the_mean_length_of_the_errors():
    found, batch = planted()
    wrong = (found.forces[:, 0].reshape(-1, 3) - batch.forces).norm(dim=1).mean()
    energy = ((found.energy[:, 0] - batch.energies).abs() / 2).mean()
    torch.testing.assert_close(error_loss(2.0)(found, batch), wrong + 2 * energy, rtol=1e-3, atol=1e-3)


def test_error_loss_does_not_see_masked_labels():
    found, batch = planted()
    batch.has_forces[1] = 0
    before = error_loss(1.0)(found, batch)
    batch.forces[2:4] += 100.0
    torch.testing.assert_close(error_loss(1.0)(found, batch), before)


def test_several_heads_are_averaged():
    found, batch = planted(heads=3)
    each = [
        error_loss(1.0)(Design(found.energy[:, [k]], found.forces[:, [k]], None, found.atomic[:, [k]], None), batch)
        for k in range(3)
    ]
    torch.testing.assert_close(error_loss(1.0)(found, batch), sum(each) / 3)


def test_log_score_is_that_of_a_normal_distribution():
    found, batch = planted(heads=4)
    loss = probability_loss("nll", 0.5, 0.2)(found, batch)

    def score(heads, labels, noise):
        law = torch.distributions.Normal(heads.mean(1), (heads.var(1) + 0.01 * noise).sqrt())
        return (-law.log_prob(labels) - 0.5 * (2 * math.pi * torch.as_tensor(noise)).log()).mean()

    want = score(found.energy, batch.energies, 1.0) / 3 + score(found.forces, batch.forces.flatten(), 0.2)
    torch.testing.assert_close(loss, want)


def test_ranked_score_agrees_with_scoringrules():
    found, batch = planted(heads=4)
    loss = probability_loss("crps", 0.5, 0.2)(found, batch)

    def score(heads, labels, noise):
        deviation = (heads.var(1) + 0.01 * noise).sqrt()
        value = scoringrules.crps_normal(labels.numpy(), heads.mean(1).numpy(), deviation.numpy())
        return torch.from_numpy(value).mean() / noise**0.5

    want = score(found.energy, batch.energies, 1.0) / 3 + score(found.forces, batch.forces.flatten(), 0.2)
    torch.testing.assert_close(loss, want)


def test_an_unknown_score():
    with pytest.raises(KeyError):
        probability_loss("brier", 1.0, 1.0)
