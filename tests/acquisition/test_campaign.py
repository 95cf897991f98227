import pytest
import torch

import bayesmol as bm
from bayesmol.acquisition.campaign import Campaign
from bayesmol.acquisition.stopping import StopRule
from bayesmol.errors import DataError, FormatError

from .conftest import TINY, Springs, pool

SETTINGS = {"budget": 20, "size": 4, "holdout": 4, "refit": 1.5, "seed": 3}


def campaign(folder, **settings):
    return Campaign(folder, model=TINY, pool=pool(40), **({"reference": Springs()} | SETTINGS | settings))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("campaign")
    return folder, campaign(folder).run()


def decisions(folder):
    return [line for line in (folder / "ledger.jsonl").read_text(encoding="utf-8").splitlines()]


def test_it_spends_its_budget(finished):
    _, history = finished
    assert history.finished == "budget" and history.spent == 20
    assert [query["purpose"] for query in history.queries] == ["holdout", "first", "chosen", "chosen", "chosen"]
    asked = [index for query in history.queries for index in query["indices"]]
    assert len(set(asked)) == len(asked) == 20
    assert [check["labels"] for check in history.checks] == [4, 8, 12, 16]
    assert all(len(query["random_indices"]) == 4 for query in history.queries[2:]), "the baseline of each choice"
    assert not set(history.queries[0]["indices"]) & {i for q in history.queries[1:] for i in q["indices"]}


def test_nothing_kept_aside_is_learned(finished):
    folder, history = finished
    model = campaign(folder).fitted()
    assert not bool(model.trained(history.holdout.structures).any())
    assert all(bool(model.trained(batch.structures).all()) for batch in history.batches)
    certified = bm.certify(model, history.holdout, domain=bm.applicability.Domain(level=0.6))
    assert certified.force_rule is not None


def test_same_seed_same_campaign(finished, tmp_path):
    campaign(tmp_path).run()
    assert decisions(tmp_path) == decisions(finished[0])


def copied(finished, folder, change):
    """The ledger of a finished campaign with some entries changed, hashes made anew."""
    from bayesmol.acquisition.ledger import Ledger

    with Ledger(finished[0] / "ledger.jsonl") as ledger:
        entries = [{k: v for k, v in entry.items() if k != "sha256"} for entry in ledger.entries]
    change(entries)
    with Ledger(folder / "ledger.jsonl") as ledger:
        for entry in entries:
            ledger.append(**entry)
    return campaign(folder)


def test_replay(finished):
    lines = decisions(finished[0])
    assert campaign(finished[0]).replay() == 6, "five queries and the end"
    assert decisions(finished[0]) == lines


def test_replay_finds_a_decision_that_does_not_follow(finished, tmp_path):
    def gained(entries):
        next(entry for entry in entries if "gains" in entry)["gains"][0] += 1e-12

    def ended(entries):
        assert entries[-1]["kind"] == "stop"
        entries[-1]["check"]["mean"] += 1e-12

    def too_early(entries):
        del entries[-6:-1]

    for name, change, match in (
        ("gained", gained, "decision 2: expected as recorded, got indices"),
        ("ended", ended, "decision 5: expected as recorded, got the end: budget"),
        ("early", too_early, "decision 4: expected as recorded, got indices"),
    ):
        with pytest.raises(DataError, match=match):
            copied(finished, tmp_path / name, change).replay()


def test_replay_trusts_no_model_on_the_disk(finished, tmp_path):
    """The model of other labels under the name of the last one: it would decide otherwise, and is not asked."""
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    kept = sorted((folder / "models").iterdir(), key=lambda path: int(path.name.split("-")[0]))
    wrong = kept[0].read_bytes()
    for path in kept:
        path.write_bytes(wrong)
    assert campaign(folder).replay() == 6
    assert all(path.read_bytes() == wrong for path in kept)


def test_it_goes_on_after_any_line(finished, tmp_path):
    lines = decisions(finished[0])
    for kept in (1, 9, 11, len(lines) - 1):
        folder = tmp_path / str(kept)
        folder.mkdir()
        (folder / "ledger.jsonl").write_text("\n".join(lines[:kept]) + "\n" + lines[kept][:7], encoding="utf-8")
        campaign(folder).run()
        assert decisions(folder) == lines


def test_a_person_is_asked(finished, tmp_path):
    """The same decisions as with a reference, in whatever order the labels come."""
    asking = campaign(tmp_path, reference=None)
    with pytest.raises(DataError, match="reference"):
        asking.run()
    while (query := asking.ask()) is not None:
        labelled = Springs().label(query.structures).labelled
        asking.tell(labelled[torch.arange(len(labelled)).flip(0)[:1]])
        again = asking.ask()
        assert len(again.indices) == len(query.indices) - 1 if len(query.indices) > 1 else True
    assert [q["indices"] for q in asking.history().queries] == [q["indices"] for q in finished[1].queries]
    assert asking.history().finished == "budget"


def test_a_failure_is_kept_and_never_learned(tmp_path):
    candidates = pool(12)
    torn = candidates.positions.clone()
    torn[9] += 20.0  # an atom of the second structure
    from dataclasses import replace

    broken = Campaign(
        tmp_path, TINY, replace(candidates, positions=torn), Springs(limit=5.0), budget=12, size=12, seed=1
    )
    history = broken.run()
    assert set(history.failures) == {1} and "apart" in history.failures[1]
    assert sum(map(len, history.batches)) == 11


def test_more_budget(finished, tmp_path):
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    longer = campaign(folder, budget=24)
    lines = decisions(folder)
    assert longer.history().finished == "budget" and decisions(folder) == lines, "who looks writes nothing"
    assert longer.run().spent == 24
    assert longer.history().queries[:5] == finished[1].queries
    assert longer.replay() == 8


def test_clusters_keep_away_from_what_is_labelled(tmp_path):
    chosen = campaign(tmp_path, budget=12, options={"function": None, "batch": "lcmd"})
    history = chosen.run()
    places = [
        index for index in range(40) if index not in history.queries[0]["indices"] + history.queries[1]["indices"]
    ]
    model = chosen._model(history.before(2))
    alone = bm.acquisition.select(model, pool(40)[places], 4, function=None, batch="lcmd", seed=0)
    assert history.finished == "budget"
    assert history.queries[2]["indices"] != [places[i] for i in alone.indices.tolist()]


def test_it_stops_at_the_target(tmp_path):
    rule = StopRule(target=10.0, share=0.5, confidence=0.8)
    history = campaign(tmp_path, stop=rule, holdout=8).run()
    assert history.finished == "target" and history.spent == 12
    assert history.checks[-1]["bound"] <= 10 and "at least 50 %" in history.checks[-1]["guarantee"]


def test_other_settings_are_refused(finished):
    with pytest.raises(DataError, match="seed"):
        campaign(finished[0], seed=4).history()
    with pytest.raises(DataError, match="reference"):
        campaign(finished[0], reference=Springs(stiffness=1.0)).history()


def test_a_changed_ledger_is_refused(finished, tmp_path):
    text = (finished[0] / "ledger.jsonl").read_text(encoding="utf-8").replace('"index": ', '"index":  ', 1)
    (tmp_path / "ledger.jsonl").write_text(text.replace('"seed": 3', '"seed": 4'), encoding="utf-8")
    with pytest.raises(FormatError, match="line 1"):
        campaign(tmp_path).history()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"size": 0}, "size"),
        ({"size": 21}, "size"),
        ({"holdout": 21}, "holdout"),
        ({"refit": 0.5}, "refit"),
        ({"stop": StopRule(0.1)}, "holdout"),
    ],
)
def test_numbers_that_do_not_fit(tmp_path, settings, match):
    with pytest.raises(DataError, match=match):
        campaign(tmp_path, **settings)


def test_only_open_structures_are_told(tmp_path):
    asking = campaign(tmp_path, reference=None)
    asking.ask()
    with pytest.raises(DataError, match="open"):
        asking.tell(Springs().label(pool(2, seed=9)).labelled)
    with pytest.raises(DataError, match="failures"):
        asking.tell(failures={99: "lost"})
    assert asking.history().spent == 0
