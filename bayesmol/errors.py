"""Exceptions of bayesmol; each message says the argument, what was expected, what came, and the remedy."""

__all__ = [
    "ApplicabilityError",
    "BayesmolError",
    "ConvergenceError",
    "DataError",
    "DependencyError",
    "FormatError",
    "ShapeError",
    "UnitError",
    "WriteError",
    "expected",
]


class BayesmolError(Exception):
    """Any error that bayesmol raises on purpose."""


class DataError(BayesmolError, ValueError):
    """An argument has a value that cannot be used."""


class ShapeError(DataError):
    """An array has a shape that does not fit."""


class UnitError(DataError):
    """A unit is unknown, or two units measure different things."""


class FormatError(DataError):
    """A file is damaged, unknown or of another version."""


class ConvergenceError(BayesmolError, RuntimeError):
    """An iteration or a sample did not converge."""


class ApplicabilityError(BayesmolError):
    """A model was used outside the domain in which its error bars hold."""


class DependencyError(BayesmolError, ImportError):
    """An optional library is absent; the message names the extra that installs it."""

    @classmethod
    def extra(cls, library: str, extra: str = "", got: str = "") -> "DependencyError":
        """Error for a missing ``library`` that bayesmol with ``extra`` installs; without one, bayesmol alone.

        If something of it is there, ``got`` says what.
        """
        install = f"pip install 'bayesmol[{extra}]'" if extra else "pip install bayesmol"
        remedy = f"pip uninstall {library}, then {install}" if got else install
        return cls(expected(library, "the library to be installed", got or "none", remedy))


class WriteError(BayesmolError, OSError):
    """A file cannot be written; ``errno`` is that of the system, and what was there before is whole."""

    def __str__(self) -> str:
        return str(self.args[-1])


def expected(argument: str, expected: object, got: object, remedy: str = "") -> str:
    """Message of an error: ``argument: expected …, got …; remedy``."""
    message = f"{argument}: expected {expected}, got {got}"
    return f"{message}; {remedy}" if remedy else message
