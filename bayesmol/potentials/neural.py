"""NeuralPotential: networks of three architectures, each with any of the posteriors."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from bayesmol.data.labelled import Labelled
from bayesmol.errors import DataError, expected
from bayesmol.inference.random import generator
from bayesmol.potentials.guards import frame_keys
from bayesmol.potentials.neural_data import Batch
from bayesmol.potentials.neural_energy import NeuralEnergy, force_scale, references_of
from bayesmol.potentials.neural_last_layer import (
    FrozenFeatures,
    LastLayerLaplace,
    ShallowEnsemble,
    VariationalLastLayer,
)
from bayesmol.potentials.neural_nuts import NoUTurn
from bayesmol.potentials.neural_posterior import NetworkPotential
from bayesmol.potentials.neural_run import Run
from bayesmol.potentials.neural_sampling import DeepEnsemble, Hamiltonian, MeanField, WeightAveraging
from bayesmol.potentials.neural_scales import fitted_scales
from bayesmol.potentials.neural_state import architecture
from bayesmol.potentials.training import Training, trained

POSTERIORS: dict[str, type] = {
    "deep-ensemble": DeepEnsemble,
    "frozen-features": FrozenFeatures,
    "hamiltonian": Hamiltonian,
    "laplace": LastLayerLaplace,
    "mean-field": MeanField,
    "no-u-turn": NoUTurn,
    "shallow-ensemble": ShallowEnsemble,
    "swag": WeightAveraging,
    "variational-last-layer": VariationalLastLayer,
}


@dataclass(frozen=True)
class NeuralPotential:
    """A neural potential and how its posterior is found.

    Attributes
    ----------
    architecture
        ``"atomic"``, ``"schnet"``, ``"equivariant"``, or a configuration of one of them.
    posterior
        A name of :data:`POSTERIORS`, or a configuration of one of them.
    training
        Schedule of the training.
    dtype
        Precision of the networks; linear algebra is in float64 whatever it is.
    """

    architecture: Any = "equivariant"
    posterior: Any = "laplace"
    training: Training = field(default_factory=Training)
    dtype: torch.dtype = torch.float32

    def fit(
        self,
        labelled: Labelled,
        validation: Labelled | None = None,
        *,
        seed: int = 0,
        device: torch.device | str | None = None,
        checkpoint: str | Path | None = None,
    ) -> NetworkPotential:
        """Train, find the posterior, and fit the scales of the error bars on the validation structures.

        Parameters
        ----------
        validation
            Structures by which training is stopped and the error bars are scaled; a tenth of ``labelled``, at least
            four structures, if ``None``.
        device
            Where to train; where the structures are if ``None``.
        checkpoint
            File of the training, from which it goes on if it is there; several networks have one file each.

        Raises
        ------
        DataError
            If there are too few structures, labels are missing, or validation structures are training structures.
        """
        posterior = _posterior(self.posterior)
        run = self.run(labelled, validation, seed=seed, device=device, checkpoint=checkpoint)
        members = posterior.members(run)
        limits = run.energy.guards(Labelled.concatenate([run.labelled, run.held_out]).structures)
        return NetworkPotential(members, fitted_scales(members, run.held_out), limits, self._provenance(labelled, seed))

    def run(
        self,
        labelled: Labelled,
        validation: Labelled | None = None,
        *,
        seed: int = 0,
        device: torch.device | str | None = None,
        checkpoint: str | Path | None = None,
    ) -> Run:
        """Train alone: the network with its data, from which any posterior is found by ``posterior.members(run)``.

        The posterior of this configuration is not used. Arguments and what is raised are those of :meth:`fit`.
        """
        data, judged = _split(labelled, validation, seed)
        place = labelled.structures.positions.device if device is None else device
        data, judged = data.to(place, torch.float64), judged.to(place, torch.float64)
        species = tuple(sorted(set(torch.cat([data.structures.species, judged.structures.species]).tolist())))
        untrained = self._untrained(species, data, seed)
        prepared = Batch.of(untrained, data), Batch.of(untrained, judged)
        untrained.network.standardise(prepared[0].environment)

        def again(number: int) -> NeuralEnergy:
            own = None if checkpoint is None else f"{checkpoint}.{number}" if number != seed else checkpoint
            energy = untrained if number == seed else self._untrained(species, data, number)
            energy.network.standardise(prepared[0].environment)
            return trained(energy, *prepared, self.training, seed=number, checkpoint=own)

        return Run(again(seed), *prepared, data, judged, self.training, seed, again)

    def _untrained(self, species: tuple[int, ...], data: Labelled, seed: int) -> NeuralEnergy:
        source = generator(seed)
        network = architecture(self.architecture).network(species, seed=source).to(self.dtype)
        energy = NeuralEnergy(network, references_of(network, data).cpu(), force_scale(data), 1, source)
        return energy.to(data.structures.positions.device)

    def _provenance(self, labelled: Labelled, seed: int) -> dict[str, Any]:
        source = None if labelled.source is None else asdict(labelled.source)
        said = {"structures": len(labelled), "training_hash": labelled.fingerprint, "source": source, "seed": seed}
        posterior = _posterior(self.posterior)
        return {
            **said,
            "posterior": {"kind": type(posterior).__name__, **asdict(posterior)},
            **_schedule(self.training),
        }


def _schedule(training: Training) -> dict[str, Any]:
    return {"training": asdict(training)}


def _posterior(given: Any) -> Any:
    if isinstance(given, str) and given in POSTERIORS:
        return POSTERIORS[given]()
    if callable(getattr(given, "members", None)):
        return given
    raise DataError(expected("posterior", f"one of {sorted(POSTERIORS)} or a configuration", repr(given)))


def _split(labelled: Labelled, validation: Labelled | None, seed: int) -> tuple[Labelled, Labelled]:
    """Training and validation structures."""
    if validation is None:
        _check_labels("labelled", labelled)
        held = max(4, len(labelled) // 10)
        if len(labelled) < held + 4:
            raise DataError(expected("labelled", "eight or more structures", len(labelled), "or give validation"))
        train, rest = labelled.split(len(labelled) - held, held, seed=seed)
        return train, rest
    for name, part in {"labelled": labelled, "validation": validation}.items():
        _check_labels(name, part)
    shared = int(torch.isin(frame_keys(validation.structures), frame_keys(labelled.structures)).sum())
    if shared:
        raise DataError(expected("validation", "structures not in labelled", f"{shared} shared", "leave them out"))
    return labelled, validation


def _check_labels(name: str, data: Labelled) -> None:
    if data.energies is None and not bool(data.has_forces.any()):
        raise DataError(expected(name, "energies or forces", "neither", "add labels"))
