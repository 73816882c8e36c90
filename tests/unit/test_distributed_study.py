"""The study of distributed clearing: its central optima, its sizes, its figures and what its page says of them."""

import csv
import json
from functools import cache

import numpy as np
import pytest

from voltier.grid.errors import InputError
from voltier.grid.feeder import read_feeder
from voltier.grid.flow.threephase import solve_power_flow
from voltier.grid.network import balanced_network
from voltier.market.primary.market import PrimaryMarket
from voltier.market.primary.three_phase.market import ThreePhaseMarket
from voltier.scenarios.studies.distributed_cases import (
    LOAD,
    PRICES,
    atom_market,
    central_optimum,
    spot_bids,
    spot_network,
)
from voltier.scenarios.studies.distributed_clearing import (
    TARGETS,
    clear_market,
    rounds_to,
    study_distributed_clearing,
)
from voltier.scenarios.studies.distributed_scaling import idle_program, scaling, side_by_side


@cache
def found(formulation):
    return clear_market(atom_market("ieee13", formulation), ("nst-pac", "admm"), lambda text: None)


def test_successive_central_programs_end_at_the_three_phase_market_s_optimum():
    market = atom_market("ieee34", "current_injection")
    central = central_optimum(market.now, market.flat)
    network, share, bids = spot_network("ieee34")
    true = ThreePhaseMarket(network, share).clear(bids, PRICES, bound=False)
    # Both end where linearising leaves 1e-9 p.u. of power.
    assert market.s_base_kva * central.solution.cost == pytest.approx(true.cost_usd_per_h, rel=1e-7)


def test_successive_central_programs_end_at_the_balanced_market_s_optimum():
    market = atom_market("ieee34", "branch_flow")
    central = central_optimum(market.now, market.flat)
    feeder = read_feeder("ieee34")
    network = balanced_network(feeder, feeder.regulators.published_tap, v_min_pu=0.9, v_max_pu=1.1)
    rows, loads = feeder.load_buses, feeder.spot_loads
    p = LOAD * np.bincount(loads.bus, loads.p_kw, len(feeder.bus))[rows]
    true = PrimaryMarket(network, network.node_of_bus[rows]).clear(spot_bids(p), PRICES, bound=False)
    assert market.s_base_kva * central.solution.cost == pytest.approx(true.cost_usd_per_h, rel=1e-6)
    assert market.dlmp(central.solution.y) == pytest.approx(true.dlmp_node_p_usd_per_kwh, rel=1e-3)


@pytest.mark.parametrize("formulation", ["branch_flow", "current_injection"])
def test_every_clearing_is_within_the_targets_cold_and_warm(formulation):
    for case in found(formulation):
        for name in ("", "cold.", "warm."):
            assert case.kpis[f"{name}converged"]
            for key, most in TARGETS.items():
                assert case.kpis[name + key] <= most, (case.method, name + key)
        assert case.kpis["warm.rounds"] < case.kpis["cold.rounds"]


def test_nst_pac_needs_fewer_rounds_than_admm():
    for formulation in ("branch_flow", "current_injection"):
        nst, admm = found(formulation)
        for key in ("rounds_to_1e-03", "rounds_to_1e-04", "rounds", "cold.rounds", "warm.rounds"):
            assert nst.kpis[key] < admm.kpis[key]


def test_rounds_to_an_accuracy_are_those_after_which_it_is_kept():
    case = found("branch_flow")[0]
    last = rounds_to(case, 1e-3)
    assert last is not None
    rounds = case.traced.history.rounds
    assert np.all(case.worst[rounds >= last] < 1e-3)
    assert case.worst[rounds < last][-1] >= 1e-3
    assert rounds_to(case, 0.0) is None


def test_markets_side_by_side_do_not_disturb_each_other():
    network, share, bids = spot_network("ieee13")
    whole, shares, all_bids = side_by_side((network, share, bids), 3)
    n = len(network.node_bus)
    s = np.asarray(share @ (bids.p0_kw + 1j * bids.q0_kvar)) / network.s_phase_kva
    every = np.asarray(shares @ (all_bids.p0_kw + 1j * all_bids.q0_kvar)) / network.s_phase_kva
    one, three = solve_power_flow(network, s).v, solve_power_flow(whole, every).v
    # The source is stiff, so a feeder does not see its neighbours.
    assert three[3:] == pytest.approx(np.tile(one[3:], 3), abs=1e-9)
    assert len(three) == 3 + 3 * (n - 3)
    program, x = idle_program(whole, shares, all_bids)
    residual = np.abs(program.matrix @ x - program.rhs)
    head = residual.argmax()
    # But for the import, which the start leaves open, the power flow satisfies the atoms' equations.
    assert np.delete(residual, head).max() < 1e-8
    assert head == 2 * (len(three) - 3)


def test_sizes_count_an_atom_for_every_node():
    points = list(scaling((), (1, 2), ("pac",), None, lambda text: None))
    assert [point.label for point in points] == ["ieee123 x1", "ieee123 x2"]
    # They have the substation in common.
    assert points[1].atoms == 2 * points[0].atoms - 1
    assert all(point.s_per_round["pac"] > 0.0 for point in points)


def test_it_writes_figures_histories_and_a_page(tmp_path):
    out, said = tmp_path / "study", []
    options = {"feeders": ["ieee13"], "formulations": ["branch_flow"], "methods": ["nst-pac", "admm"]}
    kpis = study_distributed_clearing(out, **options, copies=[0], tell=said.append)
    assert json.loads((out / "kpis.json").read_text()) == kpis
    case = kpis["ieee13.branch_flow.nst-pac"]
    expected = found("branch_flow")[0].kpis
    assert {k: v for k, v in case.items() if k != "s_per_1000_rounds"} == {
        k: v for k, v in expected.items() if k != "s_per_1000_rounds"
    }
    with (out / "histories.csv").open() as file:
        lines = [row for row in csv.DictReader(file) if row["case"] == "ieee13.branch_flow.nst-pac"]
    late = [row for row in lines if int(row["round"]) >= case["rounds_to_1e-04"]]
    assert late
    assert all(
        float(row[key]) < 1e-4 for row in late for key in ("cost_error", "consensus_pu", "equations_pu")
    )
    page = (out / "index.html").read_text(encoding="utf-8")
    # one size makes a table and no curve
    assert 'id="accuracy-figure"' in page and 'id="scaling"' in page and 'id="scaling-figure"' not in page
    assert "Fewest rounds to 1e-4: NST-PAC on 1 of 1" in page
    assert "4 of 4 clearings are within the targets" in page
    assert "Anderson acceleration of any" in page
    assert "not at hand" in page
    assert "ieee13.branch_flow: admm" in said
    with pytest.raises(InputError, match="not empty"):
        study_distributed_clearing(out, **options)
