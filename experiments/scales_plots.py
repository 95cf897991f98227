"""What plots of all chains across scales share."""

from __future__ import annotations

from matplotlib.figure import Figure

__all__ = ["BLUE", "YELLOW", "clean", "shares"]

BLUE, YELLOW = "#2f6fb3", "#e0a030"


def shares(first: dict[str, float], names: tuple[str, str]) -> Figure:
    """Bars of the share of the variance that the first of two sources has in each result; the second has the rest."""
    figure = Figure(figsize=(5.0, 1.0 + 0.4 * len(first)), layout="constrained")
    panel, values = figure.subplots(), list(first.values())
    panel.barh(list(first), values, color=BLUE, label=names[0])
    panel.barh(list(first), [1 - q for q in values], left=values, color=YELLOW, label=names[1])
    panel.set(xlabel="share of the variance", xlim=(0, 1))
    panel.legend(fontsize=7, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return clean(figure)


def clean(figure: Figure) -> Figure:
    """Without the frame above and at the right."""
    for panel in figure.axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=7)
    return figure
