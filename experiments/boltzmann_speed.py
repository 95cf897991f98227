"""How fast energies of a molecule and training of a flow are, for a CPU second or a second of a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from bayesmol.flows.molecule import bundled
from bayesmol.inference.random import generator
from bayesmol.posterior import Estimate
from bayesmol.report import Study, cpu_seconds

WIDTH = 0.05  # Å, spread of the configurations about the geometry


def force_field(
    study: Study, *, solvent: str = "obc1", rows: int = 8192, repeats: int = 9, device: str = "cpu", seed: int = 0
) -> None:
    """Energies with gradient, and energies alone, of alanine dipeptide in float32 and float64."""
    field = bundled(f"alanine-dipeptide/{solvent}")
    for name, dtype in (("", torch.float32), ("_float64", torch.float64)):
        x = configurations(field.positions, rows, seed=seed).to(device, dtype)
        with study.stage(f"force_field{name}", f"energies of {rows} configurations{name.replace('_', ', ')}"):
            both = rates(lambda x=x: field.energy_and_gradient(x), rows, repeats, device)
            alone = rates(lambda x=x: field.energy(x), rows, repeats, device)
        study.add(f"force_field{name}{_per(device)}", both)
        study.add(f"force_field_energies{name}{_per(device)}", alone)
    study.notes.append(f"alanine dipeptide, {solvent}; mean of {repeats} runs of {rows} configurations each")


def openmm_reference(
    study: Study, prmtop: Path, *, solvent: str = "obc2", rows: int = 64, repeats: int = 5, seed: int = 0
) -> None:
    """Energies with forces of the same system by OpenMM's Reference platform, one configuration after the other."""
    import openmm
    from openmm import app

    model = getattr(app, solvent.upper())
    system = app.AmberPrmtopFile(str(prmtop)).createSystem(implicitSolvent=model)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    frames = configurations(bundled(f"alanine-dipeptide/{solvent}").positions, rows, seed=seed)
    places = (frames.view(rows, -1, 3) / 10).numpy()

    def evaluate() -> None:
        for place in places:
            context.setPositions(place)
            context.getState(getEnergy=True, getForces=True).getForces(asNumpy=True)

    with study.stage("openmm", f"the same by OpenMM, {rows} configurations"):
        study.add("openmm_reference_per_cpu_second", rates(evaluate, rows, repeats, "cpu"))


def flow_training(
    study: Study, *, dimension: int = 60, angles: int = 19, rows: int = 1024, steps: int = 9, device: str = "cpu"
) -> None:
    """Samples with gradient of a coupling flow by maximum likelihood, and of one by its own draws."""
    from bayesmol.flows.couplings import Couplings

    circular = torch.arange(dimension) >= dimension - angles
    flow = Couplings().build(circular, seed=0).to(device)
    x = flow.base.sample(rows, seed=1).detach()

    def step(loss: Callable[[], Tensor]) -> None:
        flow.zero_grad()
        loss().backward()

    with study.stage("flow", f"training a flow of {dimension} coordinates"):
        forward = rates(lambda: step(lambda: -flow.log_prob(x).mean()), rows, steps, device)
        reverse = rates(lambda: step(lambda: flow.sample(rows, seed=2)[1].mean()), rows, steps, device)
    study.add(f"flow_density{_per(device)}", forward)
    study.add(f"flow_draws{_per(device)}", reverse)
    study.notes.append(f"flow: {Couplings()}, {sum(p.numel() for p in flow.parameters())} weights, batch {rows}")


def configurations(positions: Tensor, rows: int, *, seed: int) -> Tensor:
    """Rows near a geometry."""
    noise = torch.randn((rows, positions.numel()), generator=generator(seed), dtype=positions.dtype)
    return positions.reshape(1, -1) + WIDTH * noise


def rates(work: Callable[[], object], rows: int, repeats: int, device: str) -> Estimate:
    """Rows in a CPU second, or in a second of a GPU: mean over runs, the first of which is not counted."""
    clock = cpu_seconds if device == "cpu" else _seconds
    found = []
    for _ in range(repeats + 1):
        begun = clock()
        work()
        found.append(rows / max(clock() - begun, 1e-9))
    values = torch.tensor(found[1:], dtype=torch.float64)
    size = torch.tensor(float(repeats), dtype=torch.float64)
    return Estimate(values.mean(), values.std() / size.sqrt(), size, "")


def _seconds() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def _per(device: str) -> str:
    return "_per_cpu_second" if device == "cpu" else "_per_second"
