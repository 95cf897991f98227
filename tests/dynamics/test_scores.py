"""VAMP scores against closed forms, brute force over models, invariance, and deeptime."""

import pytest
import torch

from bayesmol.dynamics.scores import SingularModel, score, singular_values, symmetrised, whitening
from bayesmol.errors import DataError, ShapeError

KINDS = ["VAMP-1", "VAMP-2", "VAMP-E"]


def chain(a, b):
    """Moments of the indicator functions of a two-state chain at equilibrium."""
    pi = torch.tensor([b / (a + b), a / (a + b)], dtype=torch.float64)
    step = torch.tensor([[1 - a, a], [b, 1 - b]], dtype=torch.float64)
    return pi.diag(), pi[:, None] * step, pi.diag()


def pairs(normal, n=500, functions=4, carried=0.8):
    x = torch.cat([torch.ones(n, 1, dtype=torch.float64), normal(n, functions - 1)], 1)
    y = torch.cat([x[:, :1], carried * x[:, 1:] + 0.5 * normal(n, functions - 1)], 1)
    return x.mT @ x / n, x.mT @ y / n, y.mT @ y / n


@pytest.mark.parametrize(("a", "b"), [(0.1, 0.2), (0.5, 0.5), (0.9, 0.8), (0.01, 0.3)])
def test_two_state_chain(a, b):
    second = 1 - a - b
    assert float(score(*chain(a, b))) == pytest.approx(1 + second**2, abs=1e-10)
    assert float(score(*chain(a, b), kind="VAMP-1")) == pytest.approx(1 + abs(second), abs=1e-10)
    assert float(score(*chain(a, b), processes=1)) == pytest.approx(1, abs=1e-10)
    model = SingularModel.of(*chain(a, b))
    for kind in KINDS:
        assert float(model.score(*chain(a, b), kind=kind)) == pytest.approx(float(score(*chain(a, b), kind=kind)))


@pytest.mark.parametrize("kind", KINDS)
def test_invariant_under_invertible_maps_of_either_side(normal, kind):
    c00, c01, c11 = pairs(normal)
    a, b = normal(4, 4) + 3 * torch.eye(4), normal(4, 4) + 3 * torch.eye(4)
    mapped = a.mT @ c00 @ a, a.mT @ c01 @ b, b.mT @ c11 @ b
    torch.testing.assert_close(score(*mapped, kind=kind), score(c00, c01, c11, kind=kind), rtol=0, atol=1e-8)
    other = pairs(normal)
    held = SingularModel.of(c00, c01, c11, processes=3).score(*other, kind=kind)
    mapped_other = a.mT @ other[0] @ a, a.mT @ other[1] @ b, b.mT @ other[2] @ b
    again = SingularModel.of(*mapped, processes=3).score(*mapped_other, kind=kind)
    torch.testing.assert_close(again, held, rtol=0, atol=1e-8)


def test_dependent_functions_and_units_change_nothing(normal):
    c00, c01, c11 = pairs(normal)
    a = torch.cat([torch.eye(4, dtype=torch.float64), normal(4, 3)], 1)
    a = a * torch.logspace(-6, 6, 7, dtype=torch.float64)
    again = score(a.mT @ c00 @ a, a.mT @ c01 @ a, a.mT @ c11 @ a)
    torch.testing.assert_close(again, score(c00, c01, c11), rtol=0, atol=1e-8)


def test_whitening_is_exact_on_the_range_and_zero_beyond(normal):
    x = normal(50, 3) @ normal(3, 5)
    c = (x.mT @ x)[None].repeat(2, 1, 1) * torch.tensor([1.0, 1e-9], dtype=torch.float64)[:, None, None]
    w = whitening(c)
    eye = w.mT @ c @ w
    torch.testing.assert_close(eye.diagonal(dim1=1, dim2=2).sum(1), torch.full((2,), 3.0, dtype=torch.float64))
    torch.testing.assert_close(eye, eye.diagonal(dim1=1, dim2=2).diag_embed(), rtol=0, atol=1e-8)


def test_batch_over_draws_is_each_draw(normal):
    several = [pairs(normal, carried=c) for c in (0.2, 0.5, 0.9)]
    batch = tuple(torch.stack(part) for part in zip(*several, strict=True))
    for kind in KINDS:
        together = SingularModel.of(*batch, processes=2).score(*several[0], kind=kind)
        alone = [SingularModel.of(*one, processes=2).score(*several[0], kind=kind) for one in several]
        torch.testing.assert_close(together, torch.stack(alone))
        torch.testing.assert_close(score(*batch, kind=kind), torch.stack([score(*o, kind=kind) for o in several]))


def test_reversed_time_gives_real_values_below_one(normal):
    sigma = singular_values(*symmetrised(*pairs(normal)))
    c0, c1, _ = symmetrised(*pairs(normal))
    assert float(sigma[0]) == pytest.approx(1, abs=1e-10) and float(sigma.max()) <= 1 + 1e-10
    torch.testing.assert_close(c1, c1.mT)
    torch.testing.assert_close(c0, c0.mT)


def test_training_score_is_too_large_and_held_out_score_is_not(normal):
    """Independent noise has the true score 1: the constant function alone."""
    train, test = pairs(normal, 100, 20, 0.0), pairs(normal, 4000, 20, 0.0)
    model = SingularModel.of(*train, processes=5)
    assert float(score(*train, processes=5)) > 1.5
    assert float(model.score(*test)) < 1.1
    assert float(model.score(*test, kind="VAMP-E")) < 1  # it also pays for the singular values that are not there


def test_vamp_e_falls_by_the_squared_error_of_the_model():
    """Brute force: R_E = ‖K‖² − ‖K − K̂‖² in the Hilbert–Schmidt norm of the stationary measure."""
    c00, c01, c11 = chain(0.1, 0.2)
    wrong = SingularModel.of(*chain(0.15, 0.3))
    root = c00.diagonal().sqrt()
    exact = c01 / root[:, None] / root
    guess = root[:, None] * (wrong.left * wrong.values @ wrong.right.mT) * root
    wanted = exact.square().sum() - (exact - guess).square().sum()
    assert float(wrong.score(c00, c01, c11, kind="VAMP-E")) == pytest.approx(float(wanted), abs=1e-12)


def test_agrees_with_deeptime(normal):
    decomposition = pytest.importorskip("deeptime.decomposition")
    covariance = pytest.importorskip("deeptime.covariance")
    train, test = pairs(normal), pairs(normal)
    models = [
        covariance.CovarianceModel(c[0].numpy(), c[1].numpy(), c[2].numpy(), lagtime=1, data_mean_removed=False)
        for c in (train, test)
    ]
    theirs, others = (decomposition.VAMP(lagtime=1).fit(model).fetch_model() for model in models)
    for kind, name in zip(KINDS, (1, 2, "E"), strict=True):
        ours = SingularModel.of(*train, processes=3).score(*test, kind=kind)
        assert float(ours) == pytest.approx(theirs.score(name, test_model=others, dim=3), rel=1e-8)


def test_what_has_no_score():
    c00, c01, c11 = chain(0.1, 0.2)
    with pytest.raises(DataError, match="VAMP-2"):
        score(c00, c01, c11, kind="VAMP-3")
    with pytest.raises(DataError, match="1 to the 2"):
        score(c00, c01, c11, processes=3)
    with pytest.raises(DataError, match="positive semidefinite"):
        score(-c00, c01, c11)
    with pytest.raises(ShapeError, match=r"\(2, 2\)"):
        score(torch.eye(3), c01, c11)
