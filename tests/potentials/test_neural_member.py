import torch

from bayesmol.potentials.neural_member import Member, moments


def test_moments_of_one_member_are_those_of_its_draws(neural, ethanol):
    structures = ethanol[2].structures[:1]
    member = neural.members[0]
    source = torch.Generator().manual_seed(0)
    draws = [moments((member.drawn(source),), structures) for _ in range(60)]
    own = moments((member,), structures)
    for name in ("energy", "forces"):
        values = torch.stack([draw[name].mean for draw in draws])
        gap = (values.mean(0) - own[name].mean).abs()
        assert bool((gap <= 5 * own[name].variance.sqrt() / 60**0.5 + 1e-9).all())
        ratio = values.var(0) / own[name].variance
        assert 0.6 < float(ratio.median()) < 1.5


def test_few_heads_and_all_features_agree(neural, ethanol):
    structures = ethanol[2].structures[:2]
    member = neural.members[0]
    short = Member(member.energy, member.root[:, :3])
    few, whole = moments((short,), structures), moments((member,), structures)
    for name in ("energy", "forces", "atomic"):
        torch.testing.assert_close(few[name].mean, whole[name].mean)
        torch.testing.assert_close(few[name].factor, whole[name].factor[:, :3], atol=1e-9, rtol=1e-6)


def test_a_mixture_has_the_mean_and_the_covariance_of_its_members(neural, ethanol):
    structures = ethanol[2].structures[:1]
    source = torch.Generator().manual_seed(1)
    certain = [neural.members[0].drawn(source) for _ in range(4)]
    values = torch.stack([moments((one,), structures)["forces"].mean for one in certain])
    found = moments(tuple(certain), structures)["forces"]
    torch.testing.assert_close(found.mean, values.mean(0))
    torch.testing.assert_close(found.factor @ found.factor.T, torch.cov(values.T))
    both = moments((neural.members[0], certain[0]), structures)["forces"]
    inner = moments((neural.members[0],), structures)["forces"]
    between = (inner.mean - values[0]).square() / 2
    torch.testing.assert_close(both.variance, inner.variance / 2 + between)


def test_atomic_energies_sum_to_the_energy(neural, ethanol):
    structures = ethanol[2].structures[:2]
    own = moments(neural.members, structures)
    total = torch.zeros(2).double().index_add(0, structures.structure_index, own["atomic"].mean)
    torch.testing.assert_close(total, own["energy"].mean)  # no atoms are close enough for the repulsion


def test_with_mean_leaves_the_first_as_it_was(neural):
    member = neural.members[0]
    other = member.with_mean(member.mean + 1, member.root[:, :0])
    torch.testing.assert_close(other.mean, member.mean + 1)
    assert not torch.equal(other.energy.head, member.energy.head)
