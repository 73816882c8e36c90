"""What each mechanism does to the agents and to the operator: the table of incentives and the money of the day."""

from __future__ import annotations

import html

import numpy as np
import plotly.graph_objects as go

from voltier.scenarios.report.key_figures import readable, split_key
from voltier.scenarios.report.style import CASE_COLORS, Section, dress, embed, number, rows_html
from voltier.scenarios.studies.consumer_findings import ConsumerStudy
from voltier.scenarios.studies.consumer_fleet import CMAS

TITLES = {
    "published": "published: common prices",
    "individual": "prices for each agent",
    "uniform": "s for every kW, from outside",
    "vcg": "VCG, from outside",
}
ROWS = (
    ("Target missed at most", "max_tracking_error_kw"),
    ("Agents' budget open by at most", "max_budget_error_usd_per_h"),
    ("Cost to the operator, mean", "mean_deficit_usd_per_h"),
    ("Cost to the operator for each kWh moved", "deficit_usd_per_kwh"),
    ("Agents that lose", "losers_share"),
    ("Mean loss of those", "mean_loss_usd_per_h"),
    ("Largest loss", "max_loss_usd_per_h"),
    ("Mean surplus of an agent", "mean_surplus_usd_per_h"),
    ("Agents that gain by a false γ", "gain_gamma_share"),
    ("Largest gain by a false γ", "gain_gamma_max_usd_per_h"),
    ("Agents that gain by a false wish P⁰", "gain_wish_share"),
    ("Largest gain by a false wish P⁰", "gain_wish_max_usd_per_h"),
    ("Agents that gain by hiding room", "gain_box_share"),
    ("Largest gain by hiding room", "gain_box_max_usd_per_h"),
    ("γ reported over true γ, when all report as suits them", "strategic_factor"),
    ("Cost of the dispatch then, over that under the truth", "strategic_cost_ratio"),
)


def incentives(found: ConsumerStudy) -> Section:
    """Two tables, one of the day's markets and one of random ones."""
    tables = "".join(
        f'<h3 style="margin-top:16px">{title}</h3>{_table(found, name)}'
        for name, title in (
            ("random", f"{found.random.target_kw.size} random markets of three agents"),
            ("day", "The markets of this day"),
        )
    )
    published, vcg = (found.figures["random"][m] for m in ("published", "vcg"))
    finding = (
        f"In random markets {100 * published['losers_share']:.0f} % of agents lose by the published rule and "
        f"{100 * published['gain_gamma_share']:.0f} % gain by a false γ, up to "
        f"{number(published['gain_gamma_max_usd_per_h'])} $/h; paid by VCG nobody loses and no false report gains, "
        f"at {number(vcg['deficit_usd_per_kwh'])} $ from outside for each kWh moved"
        if vcg["losers_share"]
        == vcg["gain_gamma_share"]
        == vcg["gain_wish_share"]
        == vcg["gain_box_share"]
        == 0.0
        else "Paid by VCG some agents lose or gain by a false report, which they must not"
    )
    return Section("incentives", "What each mechanism does to its agents", finding, tables + _note(found))


def _table(found: ConsumerStudy, name: str) -> str:
    figures = found.figures[name]
    rows = [
        [
            f'<span title="{key}">{html.escape(title)}</span>',
            *(html.escape(readable(_clean(of[key]), split_key(f"x.{key}")[2])) for of in figures.values()),
        ]
        for title, key in ROWS
    ]
    return rows_html(["", *(html.escape(TITLES[mechanism]) for mechanism in figures)], rows, css="cases")


def _clean(value: float) -> float:
    """Show rounding of sums in the units' billionths as the zero that it is."""
    return 0.0 if abs(value) < 1e-9 else value


def _note(found: ConsumerStudy) -> str:
    share = found.figures["random"]["published"]["unavoidable_share"]
    day_share = found.figures["day"]["published"]["unavoidable_share"]
    gain = found.reported_wishes["gain_wish_max_usd_per_h"]
    text = (
        f"An agent loses when the market leaves it worse off than paying the grid price for its wish. In "
        f"{100 * share:.0f} % of the random markets and {100 * day_share:.0f} % of the day's, moving costs agents more "
        "than the grid pays for it, so that any rule whose budget closes among them makes somebody lose. Prices for "
        "each agent end the transfers between agents: who does not move does not lose. VCG pays each agent what it "
        "saves the others and the operator, who could buy outside at 1 $/kWh; the operator never pays more than it "
        "would outside. False reports are the best found by search, others truthful, and must be delivered. VCG is "
        "proof against false wishes only where the operator knows them from meters; taken as reported, a false wish "
        f"gains up to {number(gain)} $/h. Common prices go with one over the sum of wishes: where the agents nearly "
        "cancel, a false wish that brings the sum closer to zero gains most."
    )
    return f'<p class="note">{html.escape(text)}</p>'


def money(found: ConsumerStudy) -> Section:
    """Surplus of each agent over the day, by mechanism."""
    day, of = found.day, found.incentives["day"]
    surplus = {
        mechanism: each.surplus_usd_per_h.reshape(-1, len(CMAS)).sum(axis=0) * day.step_h
        for mechanism, each in of.items()
    }
    figure = go.Figure(
        [
            go.Bar(name=TITLES[mechanism], x=[cma.name for cma in CMAS], y=values, marker_color=CASE_COLORS[i],
                   hovertemplate="%{y:.2f} $")
            for i, (mechanism, values) in enumerate(surplus.items())
        ]
    )  # fmt: skip
    dress(figure, 340, "surplus over the day [$]")
    figure.update_xaxes(type="category", tickformat=None, hoverformat=None)
    figure.update_layout(barmode="group")
    paid = float(np.sum(of["vcg"].game.budget_error_usd_per_h) * day.step_h)
    finding = (
        f"Over the day the published rule leaves the agents {_money(surplus['published'].sum())} $ together, "
        f"{', '.join(f'{cma.name} {_money(x)} $' for cma, x in zip(CMAS, surplus['published'], strict=True))}; "
        f"VCG {_money(surplus['vcg'].sum())} $, for {paid:.2f} $ from outside"
    )
    note = (
        '<p class="note">Surplus: what an agent is paid, less its disutility, less the grid price for its wish. '
        "Disutility is a price on inconvenience and not on a bill.</p>"
    )
    return Section("money", "Who gains and who pays", finding, embed(figure, "money-figure") + note)


def _money(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
