"""Prices by market level: wholesale, dLMP of the primary market, local tariff, flat retail rate."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from voltier.scenarios.report import attack
from voltier.scenarios.report.energy import step_for
from voltier.scenarios.report.panel import Array, Panel
from voltier.scenarios.report.run import Run
from voltier.scenarios.report.style import COLOR, Section, absent, band, dress, embed, line, number, share

HOVER = "%{y:.4f} $/kWh"
LEVELS = (
    ("dLMP", "primary", "bus", "dlmp_usd_per_kwh", "dlmp"),
    ("local tariff", "secondary", "sma", "tariff_usd_per_kwh", "tariff"),
)


def retail_usd_per_kwh(run: Run) -> float | None:
    """Flat retail rate of the scenario, the price without any market."""
    value = run.setting("wholesale", "retail_usd_per_kwh")
    return None if value is None else float(value)


def section(run: Run) -> Section:
    """Wholesale price, mean and 5 to 95 % band of dLMP and tariff, and the retail line."""
    figure, means = go.Figure(), {}
    spans = [0.0]
    for name, table, key, column, color in LEVELS:
        panel = run.panel(table, key)
        if panel is None or column not in panel:
            continue
        thin = panel.select([column]).thin(max(step_for(panel.t_s), 300)).held()
        low, high = thin.quantiles(column, (5, 95))
        figure.add_traces(band(f"{name}, 5–95 %", thin.t_s, low, high, COLOR[color], step=True))
        figure.add_trace(
            line(
                f"{name}, mean", thin.t_s, thin.mean(column), COLOR[color], hover=HOVER, width=2.2, step=True
            )
        )
        means[name] = _mean(run, f"prices.mean_{color}_usd_per_kwh", panel.mean(column))
        spans.append(float(panel.t_s[-1] - panel.t_s[0]))
    system = run.panel("system")
    if system is not None and "price_usd_per_kwh" in system:
        figure.add_trace(_wholesale(system))
    if not figure.data:
        return absent("prices", "Prices", "This run wrote no prices.")
    retail = retail_usd_per_kwh(run)
    if retail is not None:
        label = f"retail {retail:g} $/kWh"
        figure.add_hline(
            y=retail,
            line={"color": COLOR["retail"], "dash": "dash", "width": 1.2},
            annotation={"text": label, "font": {"size": 12}},
            annotation_position="top left",
        )
    dress(figure, 380, "price [$/kWh]", span_s=max(spans))
    figure.update_yaxes(tickformat=".2f")
    story = attack.acts(run)
    if attack.happened(story):
        attack.mark(figure, story)
    return Section(
        "prices", "Prices by market level", _finding(means, retail), embed(figure, "prices-figure")
    )


def _mean(run: Run, key: str, values: Array) -> float:
    """The run's own figure where it has one, so that the page does not contradict itself."""
    known = run.kpis.get(key)
    return float(np.nanmean(values)) if known is None else float(known)


def _wholesale(system: Panel) -> go.Scatter:
    thin = system.thin(max(step_for(system.t_s), 300)).held()
    price = thin["price_usd_per_kwh"][:, 0]
    return line("wholesale", thin.t_s, price, COLOR["wholesale"], hover=HOVER, step=True, width=1.4)


def _finding(means: dict[str, float], retail: float | None) -> str:
    texts = [f"the {name} averages {number(mean)} $/kWh" for name, mean in means.items()]
    if not texts:
        return "No local market: all energy at the retail rate" if retail is not None else ""
    text = " and ".join(texts)
    if retail is not None:
        last = list(means.values())[-1]
        word = "below" if last <= retail else "above"
        text += f", {share(abs(retail - last), retail)} {word} the retail rate"
    return text[0].upper() + text[1:]
