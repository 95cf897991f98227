import pytest
import torch

from bayesmol.data.exact_chains import LinearProcess
from bayesmol.dynamics.markov_state_model import MarkovStateModel
from bayesmol.dynamics.plots import free_energy_surface
from bayesmol.errors import DataError


@pytest.mark.parametrize("features", [1, 2])
def test_a_surface_has_energies_and_their_errors(features):
    data = LinearProcess.autoregressive(*[0.9, 0.5][:features]).simulate(3000, seed=0)
    model = MarkovStateModel(states=5, draws=50).fit(data, seed=0)
    figure = free_energy_surface(model, data)
    labels = [panel.get_ylabel() for panel in figure.axes]
    assert "free energy (kT)" in labels and "standard deviation (kT)" in labels
    colours = figure.axes[0].collections[0].get_array()
    assert len(colours) == 3000 and float(colours.min()) == pytest.approx(0)


def test_states_without_places_have_no_surface():
    model = MarkovStateModel(draws=20).fit(torch.randint(2, (500,), generator=torch.Generator().manual_seed(0)), seed=0)
    with pytest.raises(DataError, match="made from features"):
        free_energy_surface(model, torch.zeros(5, 2))
