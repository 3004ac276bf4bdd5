"""From a matplotlib figure to SVG text that is the same on every run and can stand beside others in one page."""

import io
import re
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

__all__ = ["page_element", "plot_style", "svg_text"]


def plot_style(ink: str, muted: str, grid: str) -> Any:
    """Return matplotlib settings for plots in these three colours (text, secondary text, lines)."""
    return {
        "svg.fonttype": "none",
        "font.family": "DejaVu Sans",  # measures the text; the file asks for the reader's own sans serif
        "font.size": 9.5,
        "text.color": ink,
        "axes.edgecolor": grid,
        "axes.labelcolor": muted,
        "axes.titlesize": 9.5,
        "axes.titlecolor": ink,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": grid,
        "grid.linewidth": 0.7,
        "xtick.color": grid,
        "ytick.color": grid,
        "xtick.labelcolor": muted,
        "ytick.labelcolor": ink,
        "legend.frameon": False,
        "lines.solid_capstyle": "round",
    }


def svg_text(figure: Figure, name: str, transparent: bool) -> str:
    """Return a drawing as the text of a file; ids carry its name, since a page holds several drawings."""
    out = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name, "svg.id": None}):
        figure.savefig(
            out,
            format="svg",
            transparent=transparent,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    text = out.getvalue()
    text = text.replace("'DejaVu Sans'", "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif")
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)


def page_element(svg: str, label: str) -> str:
    """Return the text of a file as an element of an HTML page that scales with it; ``label`` is read out aloud."""
    text = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', f'role="img" aria-label="{label}"', text, count=1)
