import numpy as np
import pytest
import torch

from bayesmol.errors import UnitError
from bayesmol.units import convert, squared

FACTORS = [  # CODATA 2014 and the definitions of the calorie, the bar and the nanometre
    ("kcal/mol", "eV", 4184 / 6.022140857e23 / 1.6021766208e-19),
    ("kJ/mol", "kcal/mol", 1 / 4.184),
    ("Ha", "eV", 27.21138602),
    ("bohr", "Å", 0.52917721067),
    ("nm", "Å", 10.0),
    ("meV", "eV", 1e-3),
    ("kcal/mol/Å", "eV/Å", 4184 / 6.022140857e23 / 1.6021766208e-19),
    ("Ha/bohr", "eV/Å", 27.21138602 / 0.52917721067),
    ("eV/Å³", "GPa", 160.21766208),
    ("kbar", "GPa", 0.1),
    ("ps", "fs", 1000.0),
    ("eV/Angstrom", "eV/Å", 1.0),
]


@pytest.mark.parametrize(("start", "end", "factor"), FACTORS)
def test_factors(start, end, factor):
    assert convert(1.0, start, end) == pytest.approx(factor, rel=1e-8)
    assert convert(convert(3.0, start, end), end, start) == pytest.approx(3.0, rel=1e-14)


def test_a_variance_converts_with_the_square(normal):
    energies = 5 * normal(1000)
    want = convert(energies, "kcal/mol", "eV").var()
    torch.testing.assert_close(convert(energies.var(), "kcal/mol", "eV", power=2), want, rtol=1e-12, atol=0)
    torch.testing.assert_close(convert(energies.var(), squared("kcal/mol"), squared("eV")), want, rtol=1e-12, atol=0)
    assert not torch.isclose(convert(energies.var(), "kcal/mol", "eV"), want)


def test_squared_names():
    assert squared("eV") == "eV²"
    assert squared("eV/Å") == "(eV/Å)²"
    assert squared("") == ""


def test_both_code_points_of_angstrom_are_one_unit():
    assert convert(1.0, "\u212b", "\u00c5") == 1.0


def test_arrays_keep_their_type():
    assert isinstance(convert(np.ones(2), "eV", "meV"), np.ndarray)
    assert convert(torch.ones(2), "eV", "meV").dtype == torch.float32


@pytest.mark.parametrize(("start", "end"), [("eV", "Å"), ("eV", "eV²"), ("parsec", "Å"), ("eV/Å", "GPa")])
def test_wrong_units_are_refused(start, end):
    with pytest.raises(UnitError, match="unit"):
        convert(1.0, start, end)
