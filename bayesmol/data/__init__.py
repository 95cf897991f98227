"""What was measured: structures, their labels with standard errors, files, and the small sets that ship."""

from bayesmol.data import reference
from bayesmol.data.bundled import load, load_trajectories, names
from bayesmol.data.io import read, write
from bayesmol.data.label_cache import Cached
from bayesmol.data.labelled import Labelled, Source
from bayesmol.data.labelling import Labels, Reference
from bayesmol.data.predicted import Predicted, read_predictions
from bayesmol.data.structures import Structures
from bayesmol.data.trajectory import Trajectories
from bayesmol.data.trajectory_files import chunks, read_trajectories
from bayesmol.data.trajectory_formats import Topology

__all__ = [
    "Cached",
    "Labelled",
    "Labels",
    "Predicted",
    "Reference",
    "Source",
    "Structures",
    "Topology",
    "Trajectories",
    "chunks",
    "load",
    "load_trajectories",
    "names",
    "read",
    "read_predictions",
    "read_trajectories",
    "reference",
    "write",
]
