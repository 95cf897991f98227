import math

import pytest
import torch
from scipy import stats

from bayesmol.applicability.atoms import AtomicScore, AtomRanks, strongest_mean
from bayesmol.applicability.linear import Leverage
from bayesmol.applicability.nearest import Nearest
from bayesmol.errors import DataError, FormatError
from bayesmol.representation.atomic import AtomicFeatures


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ragged(seed=0, structures=40):
    """Structures of 1 to 9 atoms, the number of hydrogens varying."""
    source = torch.Generator().manual_seed(seed)
    counts = torch.randint(1, 10, (structures,), generator=source)
    species = torch.tensor([1, 6, 8])[torch.randint(3, (int(counts.sum()),), generator=source)]
    pointer = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return AtomicFeatures(uniform(len(species), 2, seed=seed), species, pointer)


@pytest.mark.parametrize("size", [1, 2, 5, 20])
def test_strongest_mean_by_brute_force(size):
    features = ragged()
    values = uniform(len(features.species), seed=1)
    parts = values.split(features.counts.tolist())
    brute = torch.stack([part.sort(descending=True).values[:size].mean() for part in parts])
    assert torch.allclose(strongest_mean(values, features.pointer, size), brute)


def test_infinite_atoms_make_infinite_structures():
    values = torch.tensor([1.0, math.inf, 2.0, 3.0])
    assert strongest_mean(values, torch.tensor([0, 2, 4]), 2).tolist() == [math.inf, 2.5]


def test_pooled_scores_are_those_of_the_rows():
    features, new = ragged(), ragged(seed=1)
    score = AtomicScore.of(Leverage(), features, by_species=False, strongest=1)
    assert torch.equal(score.atoms(new), Leverage().fit(features.values)(new.values)) and not score.by_species
    assert torch.equal(score(new), score.gathered(score.atoms(new), new))


def test_scores_of_a_species_see_only_that_species_and_keep_its_order():
    features, new = ragged(), ragged(seed=1)
    score = AtomicScore.of(Nearest(), features, by_species=True, strongest=1)
    assert score.by_species and score.species.tolist() == [1, 6, 8]
    for number in (1, 6, 8):
        chosen = new.species == number
        raw = Nearest().fit(features.values[features.species == number])(new.values[chosen])
        assert torch.equal(score.atoms(new)[chosen].argsort(), raw.argsort())
    # atoms beyond every training atom are ordered by how far beyond they are
    far = AtomicFeatures(
        torch.tensor([[9.0, 9.0], [90.0, 90.0]]).double(), torch.tensor([1, 1]), torch.tensor([0, 1, 2])
    )
    assert float(score(far)[1]) > float(score(far)[0]) > float(score(new).max())


def test_an_exponential_tail_is_measured_in_its_own_logarithm():
    # scores −ln u of uniform u: z is −ln of the fraction beyond, whatever the scale of the species
    count, values = 20_000, -uniform(20_000).log()
    species = torch.tensor([1, 8]).repeat(count // 2)
    values = torch.where(species == 1, 5 * values, values + 3)
    features = AtomicFeatures(values[:, None], species, torch.arange(count // 2 + 1) * 2)
    score = AtomicScore.of(lambda rows: rows[:, 0], features, by_species=True, strongest=1)
    for number in (1, 8):
        own = score.atoms(features)[species == number].sort(descending=True).values
        for share in (0.05, 0.01):
            assert float(own[int(share * len(own))]) == pytest.approx(-math.log(share), abs=0.25)


def test_scales_come_from_left_out_structures():
    # in-sample the nearest neighbour of each atom is itself, at distance 0
    features = ragged(structures=60)
    score = AtomicScore.of(Nearest(neighbours=1), features, by_species=True, strongest=1)
    assert bool((score.scales > 0.01).all())


def test_unknown_species_are_infinite():
    new = ragged(seed=1)
    new.species[3] = 9
    for by_species in (False, True):
        score = AtomicScore.of(Leverage(), ragged(), by_species=by_species, strongest=1)
        assert score.atoms(new).isinf().nonzero().tolist() == [[3]]


def test_too_few_atoms_of_a_species():
    features = ragged()
    features.species[features.species == 8] = 1
    features.species[:2] = 8
    with pytest.raises(DataError, match="neighbours"):
        AtomicScore.of(Nearest(), features, by_species=True, strongest=1)


def test_p_values_of_atoms_by_brute_force():
    calibration, new = ragged(), ragged(seed=1)
    scores, others = uniform(len(calibration.species), seed=2).round(decimals=1), uniform(len(new.species), seed=3)
    others = others.round(decimals=1)
    owner = calibration.structure_index
    found = AtomRanks.of(scores, calibration.species, owner).p_values(others, new.species)
    for atom in range(len(others)):
        own, tail = calibration.species == new.species[atom], []
        for structure in range(len(calibration)):
            mine = own & (owner == structure)
            if bool(mine.any()):
                tail.append(float((scores[mine] >= others[atom]).double().mean()))
        assert float(found[atom]) == pytest.approx((1 + sum(tail)) / (1 + len(tail)), abs=1e-12)


def test_p_values_of_unseen_kinds_and_infinite_scores():
    ranks = AtomRanks.of(uniform(10), torch.ones(10, dtype=torch.long), torch.arange(10) // 2)
    found = ranks.p_values(torch.tensor([5.0, math.inf]).double(), torch.tensor([8, 8]))
    assert found.tolist() == [1.0, pytest.approx(1 / 6)]


def test_a_random_atom_of_a_structure_keeps_the_level_and_the_strangest_does_not():
    # Atoms of a structure depend on each other, and structures of one atom are stranger than those of nine.
    repetitions, hits, strangest, pooled = 800, 0, 0, 0
    source = torch.Generator().manual_seed(0)
    for _ in range(repetitions):
        counts = 1 + 8 * torch.randint(2, (20,), generator=source)
        shared = torch.rand(20, generator=source, dtype=torch.float64) + (counts == 1)
        owner = torch.arange(20).repeat_interleave(counts)
        scores = shared[owner] + 0.3 * torch.rand(len(owner), generator=source, dtype=torch.float64)
        new = owner == 19
        ranks = AtomRanks.of(scores[~new], torch.zeros_like(owner[~new]), owner[~new])
        p = ranks.p_values(scores[new], torch.zeros_like(owner[new]))
        drawn = int(torch.randint(len(p), (), generator=source))
        hits += float(p[drawn]) <= 0.3
        strangest += float(p.min()) <= 0.3
        pooled += float((1 + (scores[~new] >= scores[new][drawn]).sum()) / (1 + (~new).sum())) <= 0.3
    band = stats.binom.ppf(0.999, repetitions, 0.3)
    assert 0.2 * repetitions < hits <= band
    assert strangest > hits
    assert pooled > 1.3 * band  # atoms counted as if they were independent break the level


def test_state():
    features = ragged()
    score = AtomicScore.of(Leverage(), features, by_species=True, strongest=2)
    header, arrays = score.state()
    again = AtomicScore.from_state(header, arrays)
    assert torch.equal(again(ragged(seed=1)), score(ragged(seed=1)))
    for wrong in ({"strongest": 0}, {"strongest": True}, {"scores": "leverage"}, {"scores": ["leverage"] * 2}):
        with pytest.raises(FormatError):
            AtomicScore.from_state(header | wrong, arrays)
    with pytest.raises(FormatError):
        AtomicScore.from_state(header, arrays | {"scales": -arrays["scales"]})
    ranks = AtomRanks.of(score.atoms(features), features.species, features.structure_index)
    once = AtomRanks.from_state(ranks.state())
    assert torch.equal(
        once.p_values(uniform(3), torch.tensor([1, 6, 8])), ranks.p_values(uniform(3), torch.tensor([1, 6, 8]))
    )
    for name in ranks.state():
        with pytest.raises(FormatError):
            AtomRanks.from_state({key: value for key, value in ranks.state().items() if key != name})
    with pytest.raises(FormatError, match="ascending"):
        AtomRanks.from_state(ranks.state() | {"scores": ranks.scores.flip(0)})
