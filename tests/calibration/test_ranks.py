import torch
from scipy import stats

from bayesmol.calibration.ranks import ascending, ascending_midranks, ascending_order, midranks


def numbers(count):
    return torch.randn(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_order_and_midranks():
    values = torch.tensor([3.0, 1.0, 2.0, 1.0, 1.0, 3.0], dtype=torch.float64)
    order = ascending_order(values)
    assert torch.equal(values[order], ascending(values))
    wanted = (stats.rankdata(values.numpy()) - 0.5) / 6
    assert torch.allclose(midranks(values, order), torch.from_numpy(wanted))
    distinct = numbers(100)
    ranks = midranks(distinct, ascending_order(distinct))
    assert torch.allclose(ranks, torch.from_numpy((stats.rankdata(distinct.numpy()) - 0.5) / 100))
    assert torch.equal(ascending_midranks(ascending(distinct)), ranks[ascending_order(distinct)])
