import pytest

from bayesmol import errors


def test_message_says_argument_expected_got_and_remedy():
    message = errors.expected("positions", "(atoms, 3) in Å", (12, 2), "transpose it?")
    assert message == "positions: expected (atoms, 3) in Å, got (12, 2); transpose it?"
    assert errors.expected("level", "0.9", 2) == "level: expected 0.9, got 2"


@pytest.mark.parametrize("name", [n for n in errors.__all__ if n.endswith("Error")])
def test_every_error_is_a_bayesmol_error(name):
    assert issubclass(getattr(errors, name), errors.BayesmolError)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.DataError, ValueError),
        (errors.ShapeError, errors.DataError),
        (errors.UnitError, errors.DataError),
        (errors.FormatError, errors.DataError),
        (errors.ConvergenceError, RuntimeError),
        (errors.DependencyError, ImportError),
    ],
)
def test_errors_are_caught_by_their_builtin_kind(error, builtin):
    with pytest.raises(builtin):
        raise error("message")


def test_a_missing_library_names_the_extra():
    assert "bayesmol[acquisition]" in str(errors.DependencyError.extra("botorch", "acquisition"))
    assert str(errors.DependencyError.extra("arviz")).endswith("pip install bayesmol")
