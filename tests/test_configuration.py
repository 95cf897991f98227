import pytest

import bayesmol as bm
from bayesmol.configuration import EXAMPLE, campaign_from_toml
from bayesmol.data.reference import TBLite
from bayesmol.errors import DataError, FormatError
from bayesmol.potentials import BayesianACE


@pytest.fixture
def write(tmp_path):
    def written(text):
        path = tmp_path / "ethanol.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return written


def test_the_example(write, tmp_path):
    bm.data.write(tmp_path / "candidates.extxyz", bm.data.load("rmd17/ethanol")[:250])
    campaign = campaign_from_toml(write(EXAMPLE), seed=5)
    assert campaign.model == BayesianACE(channels=(16, 16, 8))
    assert campaign.reference == TBLite(method="GFN2-xTB")
    assert (campaign.budget, campaign.size, campaign.holdout, campaign.seed) == (200, 10, 60, 5)
    assert campaign.stop.target == 0.1 and len(campaign.pool) == 250
    assert campaign.options == {"function": "force_variance", "batch": "logdet"}
    assert campaign.folder == tmp_path / "run"


def test_sets_that_ship_and_defaults(write, tmp_path):
    campaign = campaign_from_toml(write('pool = "rmd17/ethanol@:120"\nseed = 3\n[model]\nkind = "gradient-gp"'), seed=5)
    assert len(campaign.pool) == 120 and campaign.seed == 3 and campaign.reference is None
    assert campaign.folder == tmp_path / "ethanol"
    nested = 'pool = "rmd17/ethanol@:120"\n[model]\nkind = "ace"\ncutoffs = [5.0]\nmixing = {steps = 3}'
    assert campaign_from_toml(write(nested)).model.mixing.steps == 3


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("budget = 3", "pool"),
        ('pool = "rmd17/ethanol"\nbugdet = 3', "bugdet"),
        ('pool = "nowhere.xyz"', "nowhere.xyz"),
        ("pool = 3", "pool"),
        ('pool = "rmd17/ethanol"\nmodel = "ace"', r"\[model\]"),
        ('pool = "rmd17/ethanol"\n[model]\nkind = "mace"', "model.kind"),
        ('pool = "rmd17/ethanol"\n[model]\nkind = "ace"\ncutof = 3', "cutof"),
        ('pool = "rmd17/ethanol"\n[stop]\nshare = 0.9', "stop"),
        ('pool = "rmd17/ethanol"\nbudget = "many"', "campaign"),
        ('pool = "rmd17/ethanol"\nsize = 1000', "size"),
        ('pool = "rmd17/ethanol"\n[reference]\nkind = "tblite"\nmethod = "PM3"', "method"),
    ],
)
def test_wrong_entries(write, text, match):
    with pytest.raises(DataError, match=match):
        campaign_from_toml(write(text))


@pytest.mark.parametrize("text", ["pool = ", "\x00", "[[["])
def test_no_toml(write, text):
    with pytest.raises(FormatError, match="TOML"):
        campaign_from_toml(write(text))
