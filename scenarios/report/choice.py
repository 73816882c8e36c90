"""A drop-down that puts the series of the chosen row into the traces of a figure; see choice.js."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from voltier.scenarios.report.panel import Array
from voltier.scenarios.report.style import embed


def with_choice(
    figure: go.Figure,
    anchor: str,
    label: str,
    names: Sequence[str],
    first: int,
    series: Mapping[str, Array],
    texts: Sequence[str] = (),
) -> str:
    """Return a figure under a drop-down, as HTML.

    anchor : ids start with it ; names : (n,) what can be chosen, as plain text ; first : what the figure already shows
    series : one entry a trace of the figure, in its order, (n, n_t) each ; texts : (n,) HTML lines below the drop-down
    """
    options = "".join(
        f'<option value="{i}"{" selected" if i == first else ""}>{html.escape(name)}</option>'
        for i, name in enumerate(names)
    )
    source = f'id="{anchor}-choice" data-figure="{anchor}-figure" data-series="{anchor}-data"'
    lines = json.dumps(list(texts)).replace("</", "<\\/")
    data = f'{{"series":[{",".join(map(_rows, series.values()))}],"texts":{lines}}}'
    return (
        f'<p class="controls"><label>{html.escape(label)} <select {source}>{options}</select></label></p>'
        + (f'<p id="{anchor}-text">{texts[first]}</p>' if texts else "")
        + embed(figure, f"{anchor}-figure")
        + f'<script type="application/json" id="{anchor}-data">{data}</script>'
    )


def _rows(values: Array) -> str:
    """Rows as JSON: five significant digits are plenty here, NaN becomes null."""
    rows = (",".join(f"{x:.5g}" if np.isfinite(x) else "null" for x in row) for row in values.tolist())
    return "[" + ",".join(f"[{row}]" for row in rows) + "]"
