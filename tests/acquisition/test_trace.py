"""A trace keeps what was flushed, forgets what was taken back, and gives structures and plots."""

import numpy as np
import pytest
import torch

from bayesmol.acquisition.trace import COLUMNS, Trace, TraceFile
from bayesmol.data import Structures
from bayesmol.errors import FormatError


def row(number, width=3):
    return np.arange(width) + 10.0 * number


def test_rows_come_back(tmp_path):
    trace = TraceFile(tmp_path / "t", 3)
    for number in range(4):
        trace.append(row(number))
    trace.flush()
    trace.append(row(4))
    trace.append(row(5))
    trace.take_back(1)
    assert len(trace) == 5 and trace.flushed == 4
    np.testing.assert_array_equal(trace.read(), np.stack([row(k) for k in range(5)]))
    trace.take_back(0)
    assert len(trace) == 5


def test_what_was_written_after_the_checkpoint_is_removed(tmp_path):
    trace = TraceFile(tmp_path / "t", 3)
    for number in range(4):
        trace.append(row(number))
    trace.flush()
    again = TraceFile(tmp_path / "t", 3, rows=2)
    assert len(again) == 2
    np.testing.assert_array_equal(again.read(), np.stack([row(0), row(1)]))
    with pytest.raises(FormatError, match="5 rows of 3 numbers"):
        TraceFile(tmp_path / "t", 3, rows=5)


@pytest.fixture
def trace():
    pointer, cell = torch.tensor([0, 2]), torch.zeros(1, 3, 3, dtype=torch.float64)
    positions = torch.tensor([[0.0, 0, 0], [0, 0, 1.0]], dtype=torch.float64)
    template = Structures(positions, torch.tensor([1, 8]), pointer, cell, cell[:, 0].bool())
    rows = np.arange(4 * (len(COLUMNS) + 12), dtype=float).reshape(4, -1)
    rows[:, 0] = [0, 1, 2, 3]
    rows[0, 4] = np.nan
    return Trace.of(rows, template)


def test_structures_of_steps(trace):
    found = trace.structures(torch.tensor([1, 3]))
    assert len(found) == 2 and found.species.tolist() == [1, 8, 1, 8]
    assert torch.equal(found.positions.view(2, 2, 3), trace.positions[[1, 3]])
    assert torch.equal(trace.forces, trace.positions + 6)
    assert trace.bound[2] == 2 * 19 + 1 and len(trace) == 4


def test_plot_shows_checks_and_reference_calls(trace):
    figure = trace.plot(0.2, 0.5)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert len(lines["reference used"].get_xdata()) == 1 and len(lines["random check"].get_xdata()) == 2
    assert figure.axes[1].lines[0].get_ydata().tolist() == [0, 1, 2, 3]
    assert figure.axes[2].lines[0].get_xdata()[-1] == pytest.approx(0.0015)
