"""Write plots of studies as SVG files; equal results give equal files."""

import io
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from acclimate.registry.folder import replace_file

__all__ = ["STYLE", "write_plot"]

STYLE: Any = {
    "font.size": 8.5,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.hashsalt": "acclimate",  # equal results, equal files
}


def write_plot(path: Path, figure: Figure, title: str) -> None:
    """Write a figure that was drawn under `STYLE`; the title stands in the file's metadata."""
    drawing = io.BytesIO()
    figure.savefig(drawing, format="svg", metadata={"Date": None, "Title": title})
    replace_file(path, drawing.getvalue())
