"""Optional libraries: a module of one, or an error that names the extra which installs it."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from bayesmol.errors import DependencyError

__all__ = ["optional"]


def optional(module: str, extra: str = "") -> ModuleType:
    """The module, imported now.

    Raises
    ------
    DependencyError
        If its library is not there, or not whole, as after an installation that was interrupted.
    """
    library = module.split(".")[0]
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        raise DependencyError.extra(library, extra) from error
    except Exception as error:  # half a library may raise anything
        raise DependencyError.extra(library, extra, f"one that does not start ({error!r})") from error
    if getattr(found, "__file__", None) is None and hasattr(found, "__path__"):
        raise DependencyError.extra(library, extra, "a folder without it")
    return found
