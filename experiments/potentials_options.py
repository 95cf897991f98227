"""Options that several commands on potentials share, each with the help that teaches it."""

from pathlib import Path
from typing import Annotated

import typer

File = Annotated[str, typer.Option(help="A file in any format that the package reads, or the name of a bundled set.")]
Size = Annotated[int | None, typer.Option(help="Number of frames, counted from the first; default: all.")]
Shuffle = Annotated[bool, typer.Option(help="Shuffle the training file first.")]
Validation = Annotated[
    int, typer.Option(help="Frames after the training frames by which a network stops; others are fitted to them too.")
]
Calibration = Annotated[
    int | None,
    typer.Option(help="Frames after training and validation; default: up to 250. 0: leave-one-out where it exists."),
]
Posterior = Annotated[
    str | None,
    typer.Option(help="Of a network: shallow-ensemble, deep-ensemble, laplace, swag, …; default: its own default."),
]
Epochs = Annotated[int | None, typer.Option(help="Passes of a network through the training frames.")]
Minutes = Annotated[float | None, typer.Option(help="Time for a network: as many epochs as fit, by the first few.")]
Checkpoint = Annotated[
    Path | None, typer.Option(help="File from which a network that was killed goes on to the same weights.")
]
Probe = Annotated[list[str] | None, typer.Option(help="Frames out of the domain; may be given several times.")]
ProbeTolerance = Annotated[float, typer.Option(help="Error of an energy from which a frame is wrong, in eV.")]
Transfer = Annotated[str, typer.Option(help="Labelled frames of another molecule or material; 'none' for none.")]
Joined = Annotated[list[Path] | None, typer.Option(help="JSON file of an earlier run whose models join the front.")]
Models = Annotated[
    list[str] | None,
    typer.Option(
        help="ace, gradient-gp, atomic, schnet, equivariant, NETWORK:POSTERIOR, chgnet, GFN2-xTB or GFN1-xTB; "
        "may be given several times. Default: all for frames of this kind."
    ),
]
