"""Agreement of chains: R-hat against ArviZ, chains that disagree, and what is made of the draws."""

import pytest
import torch

from bayesmol.errors import ConvergenceError, DataError
from bayesmol.inference.chains import Chains, r_hat


def autoregressive(normal, chains=3, draws=201, entries=4, rho=0.8):
    values, noise = [normal(chains, entries)], normal(draws, chains, entries)
    for step in noise:
        values.append(rho * values[-1] + (1 - rho**2) ** 0.5 * step)
    return torch.stack(values[1:], 1)


def test_r_hat_is_that_of_arviz(normal):
    import arviz

    values = autoregressive(normal)
    values[0, :, 1] += 1.0  # a chain apart
    values[1, :, 2] *= 3.0  # a chain too wide
    values[..., 3] = values[..., 3].round(decimals=1)  # equal values share ranks
    found = r_hat(values)
    oracle = [float(arviz.rhat(values[..., k].numpy(), method="rank")) for k in range(4)]
    torch.testing.assert_close(found, torch.tensor(oracle, dtype=torch.float64), rtol=1e-6, atol=1e-6)
    assert float(found[1]) > 1.1 and float(found[2]) > 1.1


def test_chains_that_do_not_move_do_not_agree(normal):
    values = normal(2, 50, 3)
    values[..., 1] = 4.0
    values[..., 2] = torch.tensor([1.0, 2.0])[:, None]
    assert torch.isinf(r_hat(values)).tolist() == [False, True, True]


def test_checked_looks_at_what_is_monitored(normal):
    values = normal(4, 400, 2)
    apart = Chains(torch.cat([values, values.new_tensor([1.0, -1.0, 1.0, -1.0])[:, None, None] + 0.1 * values], -1))
    with pytest.raises(ConvergenceError, match="R-hat"):
        apart.checked()
    assert apart.checked(1.05, lambda vector: vector[:2]) is apart
    assert Chains(values).checked() is not None


def test_what_is_made_of_the_draws(normal):
    chains = Chains(normal(2, 100, 3))
    flat = chains.values.flatten(0, 1)
    torch.testing.assert_close(chains.mean, flat.mean(0))
    torch.testing.assert_close(chains.thinned(200), flat)
    thin = chains.thinned(10)
    assert thin.shape == (10, 3) and torch.equal(thin[5:], chains.values[1, 10::20])
    assert torch.equal(chains.sample(5, seed=1), chains.sample(5, seed=1))
    assert chains.draws("eV").unit == "eV"
    assert chains.effective_sample_size.shape == chains.r_hat.shape == (3,)
    with pytest.raises(DataError, match="size"):
        chains.thinned(201)
    with pytest.raises(DataError, match="4 draws"):
        r_hat(normal(2, 3, 1))


def test_one_number_a_draw_is_judged_like_a_row_of_one():
    values = torch.randn(4, 100, generator=torch.Generator().manual_seed(0))
    assert r_hat(values).shape == ()
    assert torch.equal(r_hat(values), r_hat(values[..., None])[0])
