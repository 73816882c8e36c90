"""One node's offers, schedule and meter, any of them by drop-down."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from voltier.scenarios.report.choice import with_choice
from voltier.scenarios.report.energy import step_for
from voltier.scenarios.report.panel import Array, Panel, pivot
from voltier.scenarios.report.run import Run
from voltier.scenarios.report.style import (
    ACCENT,
    COLOR,
    INK,
    Section,
    absent,
    dress,
    faded,
    line,
    number,
    small,
    spaced,
)

LEAST_STEP_S = 300
POWERS = ("p_min_kw", "p_max_kw", "p0_kw", "p_kw", "gen_kw")
HOVER = "%{y:,.2f} kW"


def section(run: Run) -> Section:
    """Lowest and highest offer, baseline, schedule and meter of one SMO, with its dLMP and mean tariff."""
    primary = run.panel("primary", "bus")
    if primary is None:
        return absent(
            "node", "One node's bids and schedule", "No primary market cleared, so no node has bids."
        )
    step_s = max(LEAST_STEP_S, step_for(primary.t_s))
    thin = primary.select([*POWERS, "dlmp_usd_per_kwh"]).thin(step_s)
    meter, tariff = _from_secondary(run, thin, step_s)
    first = int(np.nanargmax(np.nansum(np.abs(thin["p_kw"]), axis=0)))
    series = _series(thin, meter, tariff)
    figure = _figure(thin, {name: values[first] for name, values in series.items()})
    for trace, rows in zip(figure.data, series.values(), strict=True):
        if not np.isfinite(rows).any():
            trace.showlegend = False
    body = with_choice(figure, "node", "Node", [f"bus {name}" for name in thin.names], first, series)
    return Section("node", "One node's bids and schedule", _finding(thin, meter), body)


def _from_secondary(run: Run, thin: Panel, step_s: int) -> tuple[Array | None, Array | None]:
    """Metered power and mean tariff of each primary node: (n_t, n_node), from its agents' rows."""
    table = run.table("secondary")
    if table is None or "smo" not in table.column_names:
        return None, None
    sums = table.select(
        [c for c in ("t_s", "smo", "p_meter_kw", "tariff_usd_per_kwh") if c in table.column_names]
    )
    grouped = sums.group_by(["t_s", "smo"]).aggregate(
        [
            (name, how)
            for name, how in (("p_meter_kw", "sum"), ("tariff_usd_per_kwh", "mean"))
            if name in sums.column_names
        ]
    )
    panel = pivot(grouped, "smo").thin(step_s)
    column = {name: i for i, name in enumerate(panel.names)}
    bus = [column.get(f"smo_{name}", column.get(name, -1)) for name in thin.names]
    row = (thin.t_s - panel.t_s[0]) // step_s

    def aligned(name: str) -> Array | None:
        if name not in panel:
            return None
        padded = np.pad(panel[name], ((0, 1), (0, 1)), constant_values=np.nan)
        inside = np.where((row >= 0) & (row < len(panel.t_s)), row, len(panel.t_s))
        return np.asarray(padded[np.ix_(inside, np.array(bus))])

    return aligned("p_meter_kw_sum"), aligned("tariff_usd_per_kwh_mean")


def _series(thin: Panel, meter: Array | None, tariff: Array | None) -> dict[str, Array]:
    """What the figure shows, by trace: name → (n_node, n_t). The order is that of the figure's traces."""
    empty = np.full_like(thin["p_kw"], np.nan)
    columns = [
        *((name, thin.values.get(name)) for name in POWERS[:4]),
        ("meter", meter),
        ("gen", _real_generators(thin)),
        ("dlmp", thin["dlmp_usd_per_kwh"]),
        ("tariff", tariff),
    ]
    return {name: (empty if values is None else values).T for name, values in columns}


def _real_generators(thin: Panel) -> Array | None:
    """Output of the generators; nothing at nodes that never had any."""
    if "gen_kw" not in thin:
        return None
    return np.where(np.nanmax(thin["gen_kw"], axis=0) > 0, thin["gen_kw"], np.nan)


def _figure(thin: Panel, values: dict[str, Array]) -> go.Figure:
    figure = make_subplots(2, 1, shared_xaxes=True, row_heights=[0.68, 0.32], vertical_spacing=0.06)
    quiet = {"mode": "lines", "line": {"width": 0, "shape": "hv"}, "hovertemplate": HOVER, **spaced(thin.t_s)}
    low = go.Scatter(name="lowest offer", y=small(values["p_min_kw"]), showlegend=False, **quiet)
    high = go.Scatter(
        name="offered range",
        y=small(values["p_max_kw"]),
        fill="tonexty",
        fillcolor=faded(ACCENT, 0.15),
        **quiet,
    )
    traces = [
        low,
        high,
        line("baseline", thin.t_s, values["p0_kw"], COLOR["scheduled"], dash="dot", hover=HOVER, step=True),
        line("schedule", thin.t_s, values["p_kw"], ACCENT, hover=HOVER, step=True, width=2.2),
        line("measured", thin.t_s, values["meter"], INK, hover=HOVER, width=1.2),
        line("generator, scheduled", thin.t_s, values["gen"], COLOR["generator"], hover=HOVER, step=True),
    ]
    for trace in traces:
        figure.add_trace(trace, 1, 1)
    price = {"hover": "%{y:.4f} $/kWh", "step": True}
    figure.add_trace(line("dLMP", thin.t_s, values["dlmp"], COLOR["dlmp"], dash="dash", **price), 2, 1)
    figure.add_trace(line("mean tariff", thin.t_s, values["tariff"], COLOR["tariff"], **price), 2, 1)
    dress(figure, 460, span_s=float(thin.t_s[-1] - thin.t_s[0]))
    figure.update_yaxes(title_text="injection [kW]", row=1, col=1)
    figure.update_yaxes(title_text="price [$/kWh]", row=2, col=1)
    return figure


def _finding(thin: Panel, meter: Array | None) -> str:
    text = "What nodes offered is known to their areas only"
    if "p0_kw" in thin and np.isfinite(thin["p0_kw"]).any():
        moved = float(np.nanmean(np.abs(thin["p_kw"] - thin["p0_kw"])))
        text = f"The market moves a node by {number(moved)} kW from its baseline on average"
    if meter is not None and np.isfinite(meter).any():
        miss = float(np.nanmean(np.abs(meter - thin["p_kw"])))
        text += f"; meters follow the schedule to within {number(miss)} kW on average"
    return text
