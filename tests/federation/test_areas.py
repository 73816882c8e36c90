"""A primary market that areas clear among themselves: the same market, private bids, any mail."""

import re

import numpy as np
import pytest

from voltier.agents.messages import AreaClearing, AreaMeters, AreaPacket, SmoBids
from voltier.federates.local import run_local
from voltier.federates.session import run_scenario
from voltier.grid.errors import InputError
from voltier.market.primary.distributed.area_market import AreaMarket
from voltier.scenarios.build import build_operator, check_data, operator_names
from voltier.scenarios.build_primary import areas_of
from voltier.scenarios.built_case import built_case, market_clock
from voltier.scenarios.results import read_table
from voltier.scenarios.schema import load_scenario

pytestmark = [pytest.mark.federation, pytest.mark.usefixtures("nothing_left_behind")]

SHORT = ("hours=0.25", "primary.areas=4", "recording.settlement_period_s=900")
# What differs from run to run: wall time, and how often mail had to be sent again.
RESTLESS = ("solve_s", "slots", "packets", "sent_bytes")


def overheard(scenario):
    """Run in one process; return {(sender, receiver): bodies} of all mail."""
    heard = {}

    class Overheard:
        def __init__(self, operator):
            self.name, self._operator = operator.name, operator

        def decide(self, now_s, inbox):
            outbox = self._operator.decide(now_s, inbox)
            for mail in outbox.mail:
                heard.setdefault((mail.sender, mail.receiver), []).append(mail.body)
            return outbox

    operators = [Overheard(build_operator(scenario, name)) for name in operator_names(scenario)]
    run_local(operators, market_clock(scenario), lambda rows: None, lambda now_s: None)
    return heard


def numbers(run, table):
    """Return all numbers of a table that are the same in every run, nan where nothing is known."""
    found = read_table(run, table)
    names = [n for n in found.column_names if n not in RESTLESS and found.schema.field(n).type != "string"]
    return {n: found[n].to_numpy() for n in names if found[n].to_numpy().dtype != object}


@pytest.fixture(scope="module")
def in_one_process(tmp_path_factory):
    path = tmp_path_factory.mktemp("areas") / "run"
    return run_scenario(load_scenario("ieee123-areas", SHORT), path, transport="none")


@pytest.fixture(scope="module")
def mail():
    return overheard(load_scenario("ieee123-areas", SHORT))


def test_areas_clear_as_one_program_that_sees_everything_does(in_one_process, tmp_path):
    together = ("primary.solver=central", "primary.transport=local")
    central = run_scenario(
        load_scenario("ieee123-areas", [*SHORT, *together]), tmp_path / "central", transport="none"
    )
    here, there = numbers(in_one_process, "primary"), numbers(central, "primary")
    # The first clearing alone has the same bids in both; later ones follow what houses did.
    first = here["t_s"] == 0
    base_kw = 5000.0
    for name in ("p_kw", "q_kvar", "gen_kw"):
        assert np.abs(here[name] - there[name])[first].max() <= 1e-3 * base_kw
    price = here["dlmp_usd_per_kwh"], there["dlmp_usd_per_kwh"]
    assert np.abs(price[0] / price[1] - 1.0)[first].max() <= 0.02
    assert np.abs(here["v_pu"] - there["v_pu"])[first].max() <= 1e-3
    # What areas agree on is an AC power flow, judged by the primary operator's own.
    clearings = read_table(in_one_process, "clearings")
    assert set(clearings["status"].to_pylist()) == {"optimal"}
    assert max(clearings["ac_residual_pu"].to_pylist()) < 1e-8


def test_no_bid_no_cost_and_no_inner_state_leaves_an_area(mail):
    scenario = load_scenario("ieee123-areas", SHORT)
    areas, case = areas_of(scenario), built_case(scenario)
    names = {f"area.{k}" for k in range(areas.n_area)}
    parent = _parents(scenario)
    for (sender, receiver), bodies in mail.items():
        if sender not in names:
            continue
        kinds = {type(body) for body in bodies}
        assert kinds == ({AreaPacket} if receiver in names else {AreaClearing, AreaMeters})
        if receiver not in names:
            continue
        a, b = int(sender[5:]), int(receiver[5:])
        # A border is one line: what two areas share are the flows into it and the voltage above it.
        borders = sum({areas.of_node[k], areas.of_node[parent[k]]} == {a, b} for k in range(1, len(parent)))
        assert borders > 0
        for body in bodies:
            assert len(body.values) <= 4 * borders
            assert len(body.verdict) <= 5
    bidders = {pair for pair, bodies in mail.items() if any(isinstance(body, SmoBids) for body in bodies)}
    # The area of the source may have no operator.
    assert bidders == {("smo.0", f"area.{k}") for k in np.unique(areas.of_smo)}
    for _, name in bidders:
        told = mail["smo.0", name][0]
        assert np.array_equal(told.smo, np.flatnonzero(areas.of_smo == int(name[5:])))
    assert len(case.population.smo_bus) == sum(len(mail[pair][0].smo) for pair in bidders)


def _parents(scenario):
    case = built_case(scenario)
    market = build_operator(scenario, "area.0")._market
    assert isinstance(market, AreaMarket)
    assert len(case.feeder.bus) >= len(market._built.parent)
    return market._built.parent


def test_processes_and_bad_mail_change_no_number(in_one_process, tmp_path):
    bad = ("primary.channel.loss=0.2", "primary.channel.delay_slots=1", "primary.channel.jitter_slots=3")
    run = run_scenario(load_scenario("ieee123-areas", [*SHORT, *bad]), tmp_path / "run", transport="zmq")
    for table in ("primary", "secondary", "grid", "areas", "settlement"):
        here, there = numbers(run, table), numbers(in_one_process, table)
        for name, values in there.items():
            assert np.array_equal(here[name], values, equal_nan=True), (table, name)
    slots = [read_table(path, "areas")["slots"].to_numpy().sum() for path in (run, in_one_process)]
    assert slots[0] > 2.0 * slots[1]


def test_an_area_that_falls_silent_is_named_and_the_market_holds(tmp_path):
    cut = (
        "primary.channel.cut_areas=[1]",
        "primary.channel.cut_start_s=300",
        "primary.channel.cut_end_s=600",
    )
    run = run_scenario(load_scenario("ieee123-areas", [*SHORT, *cut]), tmp_path / "run", transport="zmq")
    assert read_table(run, "clearings")["status"].to_pylist() == ["optimal", "failed", "optimal"]
    events = [row for row in read_table(run, "events").to_pylist() if row["source"] == "pmo"]
    assert [(row["t_s"], row["kind"]) for row in events] == [(300, "clearing-held")]
    assert "area 1" in events[0]["text"]
    primary = numbers(run, "primary")
    p_kw = primary["p_kw"].reshape(3, -1)
    assert np.array_equal(p_kw[0], p_kw[1])
    assert not np.array_equal(p_kw[0], p_kw[2])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ("primary.solver=admm", "primary.solver"),
        ("primary.formulation=current_injection", "primary.formulation"),
        ("primary.relaxation_bound=true", "primary.relaxation_bound"),
        ("resilience.mitigate=true", "resilience.mitigate"),
        ("primary.transport=local", None),
        ("primary.channel.loss=1.0", "primary.channel.loss"),
        ("primary.channel.cut_areas=[99]", "primary.channel.cut_areas.0"),
    ],
)
def test_what_areas_cannot_do_is_said_before_anything_starts(change, field):
    if field is None:
        check_data(load_scenario("ieee123-areas", [change]))
        return
    with pytest.raises(InputError, match=re.escape(field)):
        check_data(load_scenario("ieee123-areas", [change]))


@pytest.mark.parametrize(
    ("cut", "field"),
    [
        (("cut_areas=[1]", "cut_start_s=600", "cut_end_s=300"), "cut_end_s"),
        (("cut_areas=[1]", "cut_start_s=3600"), "cut_start_s"),
        (("cut_start_s=600",), "cut_areas"),
    ],
)
def test_a_cut_that_would_never_be_is_refused(cut, field):
    with pytest.raises(InputError, match=rf"primary\.channel\.{field}"):
        load_scenario("ieee123-areas", [f"primary.channel.{change}" for change in cut])


def test_mail_cannot_be_disturbed_where_there_is_none(tmp_path):
    scenario = load_scenario("ieee123-areas", ["primary.channel.loss=0.1"])
    with pytest.raises(InputError, match=r"primary\.channel"):
        run_scenario(scenario, tmp_path / "run", transport="none")
