import pytest
import torch
from rich.console import Console

import bayesmol as bm
from bayesmol.report import Study


@pytest.fixture
def campaigns(study):
    return study("active_learning_campaigns")


def quiet():
    return Study("active_learning", "test", console=Console(quiet=True))


def test_published_labels_are_given_back(campaigns):
    known = bm.data.load("rmd17/ethanol")[[5, 700]]
    found = campaigns.Known().label(known.structures).labelled
    assert torch.equal(found.energies, known.energies) and torch.equal(found.forces, known.forces)


def test_a_campaign_that_stops(campaigns, tmp_path):
    found = quiet()
    campaigns.stop(found, tmp_path, campaigns=1, target=0.3, share=0.9, seed=0)
    assert found.figures["stop_rule_held_fraction"].value == 1
    assert found.figures["stopped_fraction"].value == 1
    assert found.figures["labels_not_needed"].value > 0


@pytest.mark.slow
def test_a_campaign_that_is_killed(campaigns, tmp_path):
    found = quiet()
    campaigns.kill(found, tmp_path, kills=2, seed=0)
    assert found.figures["resumed_identically"].value == 1
    assert found.figures["replayed_decisions"].value >= 6
