"""What the plots draw is what the posteriors say; every axis has a label."""

import pytest
import torch

from bayesmol.calibration import Conformal, plots
from bayesmol.data import Labelled, Structures
from bayesmol.errors import DataError
from bayesmol.posterior import Gaussian, Prediction

FRAMES, ATOMS = 60, 3


@pytest.fixture
def quantities(normal):
    truth, forces = normal(FRAMES), normal(FRAMES * ATOMS, 3)
    energy = Gaussian(truth + 0.1 * normal(FRAMES), torch.full((FRAMES,), 0.01).double(), unit="eV")
    spread = 0.1 * (0.3 * normal(FRAMES * ATOMS, 3)).exp()
    force = Gaussian(forces + spread * normal(FRAMES * ATOMS, 3), spread**2, unit="eV/Å")
    rule = Conformal().fit(energy, truth)
    index = torch.arange(FRAMES)
    return (
        plots.Quantity("energies", energy.with_rule(rule), truth, index),
        plots.Quantity("force components", force, forces, index.repeat_interleave(ATOMS)),
    )


def drawn(figure):
    """Render, and see that each panel at the margin has its labels."""
    figure.canvas.draw()
    for panel in figure.axes:
        assert panel.get_ylabel() or panel.get_yticklabels()
    assert any(panel.get_xlabel() for panel in figure.axes)
    return figure.axes


def test_parity_shows_errors_with_their_intervals(quantities):
    axes = drawn(plots.parity(*quantities))
    assert len(axes) == 4
    assert [panel.get_ylabel() for panel in axes] == [
        "prediction (eV)",
        "prediction (eV/Å)",
        "error (eV)",
        "error (eV/Å)",
    ]
    shown = sum(len(container.lines[0].get_xdata()) for container in axes[2].containers)
    assert shown == FRAMES
    missed = 1 - quantities[0].posterior.interval(0.9).covered(quantities[0].truth)
    assert f"{100 * missed:.1f} %" in axes[0].get_legend().get_texts()[1].get_text()


def test_infinite_intervals_are_drawn_without_bars(quantities):
    energies = quantities[0]
    few = Conformal().fit(energies.posterior.with_rule(None)[:5], energies.truth[:5])
    drawn(plots.parity(plots.Quantity("energies", energies.posterior.with_rule(few), energies.truth, energies.groups)))


def test_reliability_is_the_coverage_at_each_level(quantities):
    axes = drawn(plots.reliability(*quantities))
    lines = {line.get_label(): line for line in axes[0].get_lines()}
    assert {"predictive", "conformal"} <= set(lines)
    nominal, observed = lines["predictive"].get_data()
    plain = quantities[0].posterior.with_rule(None)
    assert observed[4] == plain.interval(float(nominal[4])).covered(quantities[0].truth)
    assert "conformal" not in [line.get_label() for line in axes[1].get_lines()]


def test_width_bins_have_the_errors_of_their_entries(quantities):
    forces = quantities[1]
    predicted, observed, errors = plots._binned(forces, 4)
    deviation, order = forces.posterior.stddev.flatten().sort()
    squares = (forces.truth - forces.posterior.mean).square().flatten()[order]
    size = len(order) // 4
    torch.testing.assert_close(predicted[1], deviation[size : 2 * size].square().mean().sqrt())
    torch.testing.assert_close(observed[3], squares[3 * size :].mean().sqrt())
    independent = squares[:size].std() / size**0.5 / (2 * observed[0])
    assert 0.5 < errors[0] / independent < 2
    assert bool(((observed - predicted).abs() < 5 * errors).all())
    drawn(plots.width(*quantities))


def test_domain_scores_show_infinite_ones_at_the_edge():
    scores = torch.tensor([0.1, 1.0, 10.0, torch.inf]).double()
    groups = {"usual": (scores[:2], None), "strange": (scores, scores > 5)}
    (panel,) = drawn(plots.domain_scores(groups, 2.0))
    assert panel.get_xscale() == "log"
    assert "infinite" in panel.get_xlabel()
    assert [label.get_text() for label in panel.get_yticklabels()] == ["usual", "strange"]
    (negative,) = drawn(plots.domain_scores({"usual": (scores[:2] - 1, None)}, 0.5))
    assert negative.get_xscale() == "linear"


def test_a_scan_is_relative_to_the_lowest_energy():
    x = torch.tensor([2.0, 1.0, 3.0]).double()
    posterior = Gaussian(x**2, torch.ones(3).double(), unit="eV")
    (panel,) = drawn(plots.scan(x, posterior, x, x < 2.5, xlabel="distance (Å)"))
    lines = {line.get_label(): line for line in panel.get_lines()}
    assert lines["prediction"].get_ydata().tolist() == [0.0, 3.0, 8.0]
    assert lines["outside"].get_xdata().tolist() == [3.0]


def test_quantities_leave_out_frames_without_forces(normal):
    positions = torch.tensor([[0.0, 0, 0], [1.0, 0, 0]]).double().repeat(3, 1)
    pointer = torch.tensor([0, 2, 4, 6])
    structures = Structures(
        positions, torch.ones(6).long(), pointer, torch.zeros(3, 3, 3).double(), torch.zeros(3, 3) > 0
    )
    has_forces = torch.tensor([True, False, True])
    labelled = Labelled(
        structures, forces=normal(6, 3) * has_forces.repeat_interleave(2)[:, None], has_forces=has_forces
    )
    prediction = Prediction(
        Gaussian(torch.zeros(3).double(), torch.ones(3).double(), unit="eV"),
        Gaussian(normal(6, 3), torch.ones(6, 3).double(), unit="eV/Å"),
        pointer,
    )
    (forces,) = plots.quantities(prediction, labelled)
    assert torch.equal(forces.truth, labelled.forces[[0, 1, 4, 5]])
    assert forces.groups.tolist() == [0, 0, 1, 1]
    assert forces.owner.tolist() == [0] * 6 + [1] * 6


def test_nothing_to_draw_is_refused():
    with pytest.raises(DataError, match="quantities"):
        plots.parity()
