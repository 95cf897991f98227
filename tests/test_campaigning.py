import pytest
from rich.console import Console

import bayesmol as bm
from bayesmol.campaigning import advance
from bayesmol.errors import DataError
from bayesmol.report import Study

MODEL = '[model]\nkind = "ace"\ncutoffs = [5.0]\nchannels = [4, 4, 2]\nmixing = {steps = 0}\n'
PLAIN = 'pool = "rmd17/ethanol@:40"\nfolder = "run"\nbudget = 24\nsize = 6\nholdout = 12\n'


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "ethanol.toml"
    path.write_text(PLAIN + MODEL, encoding="utf-8")
    return path


def step(path, **options):
    return advance(Study("bayesmol", "campaign", {"seed": 0}, console=Console(quiet=True)), path, **options)


def test_labels_by_hand_until_the_model(path, tmp_path):
    """A laboratory: the structures to label are a file, and so are the labels."""
    known = bm.data.load("rmd17/ethanol")[:40]
    query, asked = tmp_path / "run" / "query.extxyz", []
    first = step(path)
    assert any("query.extxyz" in note for note in first.notes)
    while query.exists():
        positions = bm.data.read(query).structures.positions.reshape(-1, 9, 3)
        places = [
            int((known.structures.positions.reshape(-1, 9, 3) - one).abs().sum((1, 2)).argmin()) for one in positions
        ]
        asked += places
        bm.data.write(tmp_path / "labels.extxyz", known[places])
        last = step(path, tell=str(tmp_path / "labels.extxyz"))
    assert len(set(asked)) == 24 == last.figures["labels"].value
    assert last.figures["kept_aside_force_mae"].unit == "eV/Å"
    assert any("over: budget" in note for note in last.notes)
    assert any("not certified" in note for note in last.notes), "12 structures are too few for a domain"
    assert bm.load(tmp_path / "run" / "model.bm").trained(known.structures).sum() == 12
    assert step(path, replay=True).figures["decisions_replayed"].value == 4


def test_labels_need_a_campaign_without_reference(path):
    path.write_text(PLAIN + '[reference]\nkind = "tblite"\n' + MODEL, encoding="utf-8")
    with pytest.raises(DataError, match="--tell"):
        step(path, tell="labels.extxyz")
