import math

import pytest
import torch

from bayesmol.calibration import recalibrated, variance_factors, z_std
from bayesmol.errors import DataError, ShapeError
from bayesmol.posterior import Gaussian


def test_factors_recover_the_scale_of_each_group():
    source = torch.Generator().manual_seed(0)
    groups = torch.tensor([1, 8]).repeat(20_000)
    scale = torch.where(groups == 1, 0.5, 3.0).unsqueeze(1)
    variance = (0.1 + torch.rand(40_000, 3, generator=source)).square().double()
    residual = scale * variance.sqrt() * torch.randn(40_000, 3, generator=source)
    factors = variance_factors(residual, variance, groups)
    assert set(factors) == {1, 8}
    # <z²> of 60 000 normal numbers has relative standard error sqrt(2/60000) = 0.6 %
    assert factors[1] == pytest.approx(0.25, rel=0.025)
    assert factors[8] == pytest.approx(9.0, rel=0.025)
    posterior = recalibrated(Gaussian(torch.zeros_like(variance), variance, unit="eV/Å"), factors, groups)
    assert float(z_std(posterior, residual)) == pytest.approx(1.0, abs=1e-3)


def test_factors_of_scalars_by_hand():
    factors = variance_factors(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 1.0, 9.0]), torch.tensor([0, 0, 4]))
    assert factors == {0: pytest.approx(2.5), 4: pytest.approx(1.0)}


def test_bad_input():
    with pytest.raises(ShapeError):
        variance_factors(torch.ones(3), torch.ones(3), torch.zeros(2, dtype=torch.long))
    with pytest.raises(DataError, match="positive variances"):
        variance_factors(torch.ones(2), torch.zeros(2), torch.zeros(2, dtype=torch.long))
    with pytest.raises(DataError, match="finite residuals"):
        variance_factors(torch.tensor([math.nan]), torch.ones(1), torch.zeros(1, dtype=torch.long))
    with pytest.raises(DataError, match="zero in each group"):
        variance_factors(torch.tensor([0.0, 1.0]), torch.ones(2), torch.tensor([6, 7]))
    with pytest.raises(DataError, match=r"\[7\]; calibrate on these too"):
        recalibrated(Gaussian(torch.zeros(2), torch.ones(2), unit="eV"), {6: 1.0}, torch.tensor([6, 7]))
