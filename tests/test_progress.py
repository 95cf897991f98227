import io
import sys

import pytest

from bayesmol.progress import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_silent_without_a_terminal(capsys):
    with progress("fitting", total=3) as advance:
        advance()
        advance(2)
    assert capsys.readouterr() == ("", "")


def test_shows_the_description_on_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress("fitting", total=3) as advance:
        advance(3)
    assert "fitting" in terminal.getvalue()


def test_an_error_inside_passes_through():
    with pytest.raises(ZeroDivisionError), progress("fitting"):
        raise ZeroDivisionError
