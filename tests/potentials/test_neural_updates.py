import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.potentials.neural_updates import _rows, moved, updated


def test_update_conditions_the_gaussian_last_layer(neural, ethanol):
    new = ethanol[1][10:13]
    found = updated(neural, new)
    rows, residuals, noise = _rows(neural, new)
    spread = max(neural.scales.energy, neural.scales.force)
    white = spread**0.5 * rows
    covariance = torch.linalg.inv(torch.eye(white.shape[1]).double() + white.T @ (white / noise[:, None]))
    direction = covariance @ white.T @ (residuals / noise)
    root = neural.members[0].root
    want = neural.members[0].mean + spread**0.5 * root @ direction
    torch.testing.assert_close(found.members[0].mean, want, atol=1e-8, rtol=1e-6)
    again = found.members[0].root
    torch.testing.assert_close(again @ again.T, root @ covariance @ root.T, atol=1e-10, rtol=1e-6)


def test_update_explains_the_labels_better_and_lessens_the_spread(neural, ethanol):
    new = ethanol[1][10:20]
    found = neural.update(new)
    misfits = [(residuals.square() / noise).sum() for _, residuals, noise in (_rows(p, new) for p in (neural, found))]
    assert misfits[1] < misfits[0]
    before, after = (potential.predict(new.structures).forces.epistemic.variance for potential in (neural, found))
    assert bool((after <= before * max(neural.scales.energy / neural.scales.force, 1) * (1 + 1e-9)).all())
    assert bool(found.trained(new.structures).all())


def test_several_networks_cannot_be_updated(neural, ethanol):
    from dataclasses import replace

    two = replace(neural, members=neural.members * 2)
    with pytest.raises(DataError, match="fit anew"):
        two.update(ethanol[1][10:12])


def test_float32_and_back_keeps_the_geometry(neural, ethanol):
    structures = ethanol[2].structures[:2]
    single = moved(neural, None, torch.float32)
    assert next(single.model.network.parameters()).dtype == torch.float32
    assert single.model.references.dtype == torch.float64
    one, two = (part.predict(structures).forces.mean for part in (single, neural))
    torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-3)
