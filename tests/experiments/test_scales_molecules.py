"""From labels to kinetics of butane: each stage on little data, and results whose truth is known."""

import math

import pytest
import torch
from ase import Atoms
from ase.build import molecule

from bayesmol.data import Structures
from bayesmol.errors import ConvergenceError, DataError
from bayesmol.potentials.surface import Surface
from bayesmol.report import Study


@pytest.fixture
def sampling(study):
    return study("scales_molecules_sampling")


@pytest.fixture
def module(study):
    return study("scales_molecules")


def result(study, *, energy=0.5, time=4.0, error=0.05, shifts=(0.0, 0.0, 0.0), seed=0):
    """A chain with normal errors of the given size."""
    module, source = study("scales_molecules_chain"), torch.Generator().manual_seed(seed)
    normal = torch.randn(2, 1000, generator=source, dtype=torch.float64)
    bins, facts = module.BINS, dict.fromkeys(module.FACTS, 1.0)
    lags = torch.tensor([[0.5, 3.0, 4.0, 5.0], [1.0, 3.0, 4.0, 5.0]], dtype=torch.float64)
    return module.Chain(
        energies=energy + error * normal[0],
        times=time * (error * normal[1]).exp(),
        shifts=torch.tensor(shifts).double() + 0.01 * torch.randn(1000, 3, generator=source, dtype=torch.float64),
        posterior=torch.tensor([0.1, 0.1]).double(),
        profile=torch.linspace(3.0, 0.0, bins).double(),
        profile_errors=torch.full((2, bins), 0.1).double(),
        map=torch.full((2 * bins, 2 * bins), 1.0 / (2 * bins) ** 2).double(),
        lags=lags,
        facts=torch.tensor(list(facts.values())).double(),
    )


def known(study, *, energy=0.5, time=4.0, calls=10_000):
    module, normal = study("scales_molecules_reference"), torch.linspace(-1.7, 1.7, 400, dtype=torch.float64)
    profile = torch.linspace(3.0, 0.0, 18).double()
    return module.Truth(400.0, energy + 0.01 * normal, time * (0.01 * normal).exp(), profile, calls)


class Springs:
    """Each atom on a spring at its place in the geometry: an energy that no molecule has, but cheap."""

    def __init__(self, geometry):
        self.geometry = geometry

    def surface(self, structures, *, virial=False):
        off = structures.positions.view(-1, 14, 3) - self.geometry
        return Surface(0.5 * off.square().sum((1, 2)), -off.reshape(-1, 3))


def test_the_scan_turns_the_molecule_once_around(sampling):
    found = sampling.scan(12, 0)
    angles = sampling.torsion(found.positions.view(-1, 14, 3))
    counts = torch.histc(angles.float(), 6, -180, 180)
    assert counts.min() >= 1
    reference = molecule("trans-butane")
    bonded = torch.pdist(torch.tensor(reference.positions)) < 1.65
    lengths = torch.stack([torch.pdist(x)[bonded] for x in found.positions.view(-1, 14, 3)])
    assert lengths.min() > 0.8 and lengths.max() < 1.9


def test_equivalent_frames_have_the_same_distances_between_like_atoms(sampling):
    x = sampling.scan(3, 1).positions.view(-1, 14, 3)
    found = sampling.equivalent(x).view(3, 4, 14, 3)
    kinds = torch.tensor([2] * 4 + [1] * 10)
    kinds[[1, 2]] = 3
    for frame in range(3):
        spectra = [torch.linalg.eigvalsh(torch.cdist(y, y) * torch.outer(kinds, kinds)) for y in found[frame]]
        for one in spectra[1:]:
            torch.testing.assert_close(one, spectra[0])
    angles = sampling.torsion(found)
    torch.testing.assert_close(angles[:, 2], -angles[:, 0])
    torch.testing.assert_close(angles[:, 1], angles[:, 0])


def test_dynamics_goes_on_where_it_was(sampling, tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "CHUNK", 40)
    start = Structures.from_ase([molecule("trans-butane")] * 2)
    surface = Springs(start.positions.view(-1, 14, 3)[:1])
    options = {"temperature": 300.0, "seed": 3}
    whole = sampling.motion(tmp_path / "whole", surface, start, steps=120, **options)
    sampling.motion(tmp_path / "killed", surface, start, steps=80, **options)
    again = sampling.motion(tmp_path / "killed", surface, start, steps=120, **options)
    assert torch.equal(whole.positions, again.positions)
    assert torch.equal(whole.velocities, again.velocities)
    assert whole.positions.shape == (6, 2, 14, 3)
    assert whole.calls == 240


def test_labels_correct_the_free_energy(study):
    one = result(study, shifts=(0.2, -0.1, 0.0))
    assert float(one.free_energy.mean()) == pytest.approx(0.5 + 0.3, abs=0.01)
    assert float(one.free_energy.std()) > float(one.energies.std())


def test_a_higher_barrier_takes_longer(study):
    # Only the barrier is lower in population, by exp(-0.3): the time grows by the inverse.
    assert float(result(study, shifts=(0.0, 0.0, -0.3)).slowing.mean()) == pytest.approx(0.3, abs=0.01)
    # One zero for all energies changes nothing.
    assert float(result(study, shifts=(0.3, 0.3, 0.3)).slowing.mean()) == pytest.approx(0.0, abs=0.01)
    # τ ∝ P_t P_g / P_b.
    found = result(study, shifts=(0.4, 0.0, 0.1))
    before = torch.sigmoid(torch.tensor([0.5, -0.5])).double()
    after = before * torch.tensor([math.exp(0.4), 1.0]).double()
    total = float(after.sum())
    exact = math.log(float(after.prod()) / total**2 / float(before.prod())) - math.log(math.exp(0.1) / total)
    assert float(found.slowing.mean()) == pytest.approx(exact, abs=0.01)


def test_intervals_are_judged_by_the_reference(study, module, tmp_path, monkeypatch):
    chains = [result(study, seed=k, energy=0.5 if k < 3 else 0.9) for k in range(4)]
    monkeypatch.setattr(module, "chain", lambda folder, settings, *, seed: chains[seed])
    run, settings = Study("across_scales", "molecules"), module.Settings()
    found = module.molecules(run, tmp_path, settings, repeats=4, known=known(study), seed=0)
    assert run.figures["free_energy_inside_90"].value == pytest.approx(0.75)
    assert run.figures["timescale_inside_90"].value == 1.0
    assert run.figures["reference_calls_ratio"].value == pytest.approx(1e-4)
    for name in ("free_energy", "timescale"):
        assert 0 <= run.figures[f"{name}_share_of_labels"].value <= 1
    assert set(module.plots(found, known(study))) == {"profile", "torsions", "relaxation", "results", "shares"}
    assert set(module.plots(found, None)) == {"profile", "torsions", "relaxation", "results", "shares"}


def test_a_reference_at_another_temperature_is_refused(study, module, tmp_path):
    settings = module.Settings(temperature=300.0)
    with pytest.raises(DataError, match="300 K"):
        module.molecules(Study("a", "b"), tmp_path, settings, repeats=1, known=known(study), seed=0)


def test_a_folder_belongs_to_its_settings(study, tmp_path):
    stages = study("scales_molecules_stages")
    stages.same(tmp_path, {"seed": 0})
    stages.same(tmp_path, {"seed": 0})
    with pytest.raises(DataError, match="another folder"):
        stages.same(tmp_path, {"seed": 1})


def test_the_reference_labels_equivalent_geometries_alike(sampling):
    pytest.importorskip("tblite")
    x = sampling.equivalent(sampling.scan(1, 0).positions.view(-1, 14, 3))
    structures = Structures.from_ase([Atoms("C4H10", y.numpy()) for y in x])
    found = sampling.Direct().surface(structures)
    assert float(found.energies.max() - found.energies.min()) < 1e-5


def test_the_reference_is_written_and_read_back(study, sampling, tmp_path, monkeypatch):
    module = study("scales_molecules_reference")
    monkeypatch.setattr(sampling, "CHUNK", 1000)
    start = Structures.from_ase([molecule("trans-butane")] * 2)

    def turned(folder, surface, first, *, temperature, steps, seed):
        """A walk between the two states that is over in a few frames."""
        source = torch.Generator().manual_seed(seed)
        places = (torch.rand(2000, 2, generator=source) < 0.05).cumsum(0) % 2
        x = torch.stack([torch.tensor(_at(angle).positions) for angle in (180.0, 65.0)])[places]
        return sampling.Motion(x, start, torch.zeros(28, 3), steps * 2, 0)

    class Drawn(torch.nn.Module):
        """Weighted draws by hand: two thirds of the weight is trans."""

        def weighted(self, size, *, seed):
            states = torch.arange(size) % 2
            x = torch.stack([torch.tensor(_at(angle).positions) for angle in (180.0, 65.0)])[states]
            return x.flatten(1), torch.tensor([2.0, 1.0]).double().log()[states]

    monkeypatch.setattr(module, "motion", turned)
    monkeypatch.setattr(module, "flow", lambda *arguments: Drawn())
    run, out = Study("across_scales", "reference"), tmp_path / "truth.json"
    settings = {"temperature": 400.0, "walkers": 2, "picoseconds": 4.0, "draws": 2000, "training": 20}
    module.reference(run, out, seed=0, **settings)
    found = module.truth(out)
    assert float(found.free_energy.mean()) == pytest.approx(math.log(2), abs=0.02)
    assert found.calls == 8000
    assert float(found.timescale.mean()) > 0
    with pytest.raises(DataError, match="300 K"):
        found.check(300.0)


def test_nuclei_on_each_other_have_no_density(study):
    pytest.importorskip("tblite")
    module, start = study("scales_molecules_reference"), Structures.from_ase(molecule("trans-butane"))
    density = module._density(start, 400.0)
    whole = start.positions.flatten()
    crushed = whole.clone().view(14, 3).index_copy(0, torch.tensor([5]), start.positions[:1]).flatten()
    energies = density.energy(torch.stack([whole, crushed]))
    assert bool(energies[0].isfinite()) and float(energies[1]) == math.inf


def _at(angle):
    """Butane at a torsion."""
    atoms = molecule("trans-butane")
    atoms.set_dihedral(0, 1, 2, 3, angle, indices=[3, 12, 13, 5, 8, 9])
    return atoms


@pytest.mark.parametrize("needed", [6.0, 20.0, 100.0])
def test_dynamics_goes_on_where_its_time_rests_on_too_few_events(study, monkeypatch, tmp_path, needed):
    module, lengths = study("scales_molecules_chain"), []

    def timescale(run, *, seed):
        if run < needed:
            raise ConvergenceError("too few")
        return "found"

    monkeypatch.setattr(module, "moved", lambda *known: lengths.append(known[3].picoseconds) or lengths[-1])
    monkeypatch.setattr(module, "timescale", timescale)
    known = tmp_path, None, None, module.Settings(picoseconds=6.0), 0
    if needed > 24:
        with pytest.raises(ConvergenceError):
            module._long_enough(*known)
    else:
        assert module._long_enough(*known) == (lengths[-1], "found")
    assert lengths == ([6.0] if needed == 6 else [6.0, 12.0, 24.0])


def test_dynamics_that_went_on_is_told(study, module):
    one, other = result(study), result(study, seed=1)
    other.facts[list(study("scales_molecules_chain").FACTS).index("moves")] = 2.0
    for chains, told in (([one, one], False), ([one, other], True)):
        report = Study("across_scales", "molecules")
        module._costs(report, chains, None)
        assert any("up to 2 times the steps" in note for note in report.notes) is told
