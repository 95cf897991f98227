"""The card of a potential of springs, whose errors are known, and of one that knows a single molecule."""

import json
from dataclasses import dataclass, replace

import pytest
import torch
from matplotlib.figure import Figure as Plot
from rich.console import Console

from bayesmol.data import Labelled, Structures, load
from bayesmol.errors import DataError
from bayesmol.posterior import Gaussian, Prediction
from bayesmol.potentials.surface import Surface
from bayesmol.report import Study
from bayesmol.representation.neighbours import neighbours
from bayesmol.scorecards import CRITERIA, Budget, Scorecard, scorecard


@dataclass(frozen=True)
class Springs:
    """Springs between near atoms; forces are off by noise of the deviation that is stated."""

    deviation: float = 0.05
    single: bool = False

    def surface(self, structures, *, virial=False):
        found = neighbours(structures, 2.0)
        length = found.vectors.norm(dim=1)
        pull = (length - 1.2)[:, None] * found.vectors / length[:, None]
        owner = structures.structure_index[found.first]
        energies = torch.zeros(len(structures)).double().index_add(0, owner, (length - 1.2) ** 2 / 4)
        return Surface(energies, torch.zeros_like(structures.positions).index_add(0, found.first, pull))

    def predict(self, structures):
        structures = Structures.coerce(structures)
        if self.single and int(structures.counts.max()) != 9:
            raise DataError("structures: expected the molecule ethanol, got another")
        mean = self.surface(structures)
        noise = torch.randn(mean.forces.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        energy = Gaussian(mean.energies + 0.001, torch.full_like(mean.energies, 1e-6), unit="eV")
        forces = Gaussian(mean.forces + self.deviation * noise, torch.full_like(noise, self.deviation**2), unit="eV/Å")
        return Prediction(energy, forces, structures.pointer)


class Single(Springs):
    """Without a fast mean of its own."""

    surface_of_all = Springs.surface
    surface = None

    def predict(self, structures):
        if int(Structures.coerce(structures).counts.max()) != 9:
            raise DataError("structures: expected the molecule ethanol, got another")
        return Springs(self.deviation).predict(structures)


def labelled(structures):
    mean = Springs().surface(structures)
    return Labelled(structures, mean.energies, mean.forces)


TEST, OTHER = labelled(load("rmd17/ethanol").structures[:60]), labelled(load("methanol/test").structures[:40])
BUDGET = Budget(seconds=4.0)


@pytest.fixture(scope="module")
def card() -> Scorecard:
    return scorecard(Springs(), TEST, transfer=OTHER, budget=BUDGET)


def test_a_good_potential(card):
    assert list(card.lines) == list(CRITERIA) and card.model == "Springs"
    assert card.lines["accurate"].verdict == card.lines["honest"].verdict == card.lines["transferable"].verdict == "met"
    assert card.scores["energy_mae"].value == pytest.approx(0.001)
    assert card.scores["transfer_ratio"].value == pytest.approx(1.0, abs=0.1)
    assert card.scores["microseconds"].lower > 0 and card.scores["extensivity_error"].value < 1e-9
    ratio, both = card.scores["uncertainty_ratio"], card.scores["microseconds_with_uncertainty"]
    assert ratio.value == pytest.approx(both.value / card.scores["microseconds"].value)
    assert 0 < ratio.lower <= ratio.value <= ratio.upper
    assert card.growth.timings[0].atoms == 99 and 0.2 < card.scores["exponent"].value < 1.5


def test_a_card_prints_and_is_data(card):
    text = str(card)
    assert all(f"\n{name}: " in f"\n{text}" for name in CRITERIA) and len(text.splitlines()) == 6
    content = json.loads(json.dumps(card.content(), allow_nan=False))
    assert content["accurate"]["verdict"] == "met" and content["growth"][0]["atoms"] == 99
    console = Console(width=100)
    with console.capture() as captured:
        console.print(card.table())
    assert "scorecard of Springs" in captured.get() and "µs/atom" in captured.get()
    assert isinstance(card.plot(), Plot)


def test_a_study_keeps_the_numbers(card):
    study = Study("potentials", "scorecard")
    card.report(study, prefix="springs_")
    figure = study.figures["springs_force_mae"]
    assert figure.value == card.scores["force_mae"].value and figure.standard_error > 0 and figure.unit == "eV/Å"
    assert study.figures.keys() == {f"springs_{name}" for name in card.figures}
    assert study.content()["settings"]["scorecards"]["Springs"]["honest"]["verdict"] == "met"


def test_what_a_potential_cannot_do_has_a_reason_and_no_number():
    card = scorecard(Single(), TEST, transfer=OTHER, budget=Budget(0.5), name="one molecule")
    for name in ("scalable", "transferable"):
        line = card.lines[name]
        assert line.verdict == "not possible" and "ethanol" in line.sentence and not line.scores
    assert card.lines["accurate"].verdict == "met" and card.growth is None
    assert "exponent" not in card.figures
    with pytest.raises(DataError, match="ethanol"):
        card.plot()


def test_what_was_not_given_cannot_be_told():
    card = scorecard(Springs(), replace(TEST, energies=None), budget=Budget(0.3))
    assert card.lines["accurate"].verdict == card.lines["transferable"].verdict == "cannot tell"
    with pytest.raises(DataError, match="energies or forces"):
        scorecard(Springs(), replace(TEST, energies=None, forces=None, has_forces=None))


def test_same_seed_same_numbers_but_for_the_times(card):
    again = scorecard(Springs(), TEST, transfer=OTHER, budget=Budget(0.3))
    for name in ("accurate", "transferable", "honest"):
        assert again.lines[name] == card.lines[name]
