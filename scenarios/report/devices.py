"""What the fleet's devices draw and deliver, stacked."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from voltier.scenarios.report.energy import step_for
from voltier.scenarios.report.kinds import kinds_of
from voltier.scenarios.report.run import Run
from voltier.scenarios.report.style import (
    INK,
    Section,
    absent,
    area,
    clock,
    dress,
    embed,
    line,
    number,
    share,
)


def section(run: Run) -> Section:
    """Consumption stacked upwards, supply stacked downwards, the net as a line."""
    panel = run.devices()
    if panel is None:
        return absent("devices", "Fleet of devices", "This run wrote no devices table.")
    thin = panel.thin(step_for(panel.t_s))
    figure, demand = go.Figure(), {}
    net = np.zeros(len(thin.t_s))
    for column, (name, color) in kinds_of(thin.values).items():
        drawn = -thin.total(column)
        net += drawn
        up, down = np.maximum(drawn, 0), np.minimum(drawn, 0)
        demand[name] = up
        first = True
        for values, group in ((up, "up"), (down, "down")):
            if np.nanmax(np.abs(values), initial=0) > 1e-9:
                layer = {"legendgroup": name, "showlegend": first}
                figure.add_trace(area(name, thin.t_s, values, color, group, **layer))
                first = False
    figure.add_trace(line("net", thin.t_s, net, INK, width=2))
    dress(figure, 400, "consumption [kW], supply below zero", span_s=float(thin.t_s[-1] - thin.t_s[0]))
    total = np.sum(list(demand.values()), axis=0)
    peak = int(np.nanargmax(total))
    largest = max(demand, key=lambda name: demand[name][peak])
    finding = (
        f"Consumption peaks at {number(total[peak])} kW at {clock(thin.t_s[peak])}, "
        f"{share(demand[largest][peak], total[peak])} of it {largest}"
    )
    return Section("devices", "Fleet of devices", finding, embed(figure, "devices-figure"))
