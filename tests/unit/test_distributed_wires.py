"""Atoms take branches of every kind: windings that block the zero sequence and split-phase services among them."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from voltier.grid.readers.opendss import read_opendss
from voltier.market.primary.distributed.atoms import per_node
from voltier.market.primary.distributed.options import Options
from voltier.market.primary.distributed.successive import solve_successive
from voltier.market.primary.distributed.wires import wires_of
from voltier.market.primary.three_phase.market import ThreePhaseMarket
from voltier.scenarios.studies.distributed_cases import PRICES, central_optimum, phase_case, spot_bids
from voltier.scenarios.studies.distributed_scaling import LARGE, idle_program, large_market

FEEDER = """clear
new circuit.small basekv=115 pu=1.02 phases=3 bus1=sourcebus mvasc3=2000 mvasc1=1800
new transformer.sub phases=3 windings=2 xhl=6 buses=[sourcebus low] conns=[delta wye] kvs=[115 12.47] kvas=[5000 5000]
new linecode.wire nphases=3 units=km rmatrix=[0.3 | 0.1 0.3 | 0.1 0.1 0.3] xmatrix=[0.6 | 0.2 0.6 | 0.2 0.2 0.6]
~ cmatrix=[0 | 0 0 | 0 0 0]
new line.one bus1=low bus2=mid linecode=wire length=3 units=km
new linecode.lateral nphases=1 units=km rmatrix=[0.5] xmatrix=[0.7] cmatrix=[0]
new line.two bus1=mid.1 bus2=end.1 linecode=lateral length=1 units=km
new transformer.split phases=1 windings=3 buses=[end.1.0 house.1.0 house.0.2] kvs=[7.2 0.12 0.12] kvas=[50 50 50]
~ xhl=2 xht=2 xlt=1.4 %rs=[0.6 1.2 1.2]
new load.shop bus1=mid phases=3 kv=12.47 kw=900 kvar=300
new load.left bus1=house.1 phases=1 kv=0.12 kw=12 kvar=4
new load.right bus1=house.2 phases=1 kv=0.12 kw=8 kvar=2
set voltagebases=[115 12.47 0.208]
calcvoltagebases
solve
"""


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    path = tmp_path_factory.mktemp("feeder") / "small.dss"
    path.write_text(FEEDER)
    network = read_opendss(path, v_min_pu=0.90, v_max_pu=1.10)
    loads = network.loads
    kw = (loads.s_power + loads.s_current + loads.s_impedance).real * network.s_phase_kva
    touched = (abs(loads.across) > 0).astype(float)
    share = sparse.csc_matrix(touched.multiply(1.0 / touched.sum(axis=1)).T)
    zero = np.zeros(len(kw))
    bids = replace(
        spot_bids(kw), p0_kw=zero, p_min_kw=-0.3 * kw, p_max_kw=0.3 * kw, q0_kvar=zero,
        q_min_kvar=-0.2 * kw, q_max_kvar=0.2 * kw, gen_max_kw=0.2 * kw,
    )  # fmt: skip
    return network, share, bids


def test_windings_without_inverse_keep_as_many_equations_as_currents(market):
    network = market[0]
    wires = wires_of(network)
    branches = network.branches
    ends = [(a >= 0).sum() for a in branches.from_node], [(b >= 0).sum() for b in branches.to_node]
    assert any(a != b for a, b in zip(*ends, strict=True))
    assert wires.at_v.shape[0] == wires.at_i.shape[0] == sum(ends[0])
    # Whatever the voltages: currents by Ohm's law feed what the nodal admittance says.
    rng = np.random.default_rng(2)
    v = 1.0 + 0.05 * (rng.normal(size=len(network.node_bus)) + 1j * rng.normal(size=len(network.node_bus)))
    i = sparse.linalg.spsolve(sparse.csc_matrix(wires.at_i), wires.at_v @ v)
    fed = wires.out_i @ i + wires.out_v @ v
    # Short windings have admittances of 1e4 p.u. and more, and the difference rounds.
    assert fed == pytest.approx(network.y @ v, rel=1e-9, abs=1e-9 * np.abs(network.y.data).max())


def test_a_power_flow_satisfies_the_atoms_equations(market):
    program, x = idle_program(*market)
    off = np.abs(program.matrix @ x - program.rhs)
    head = int(program.price_row[-1])
    assert np.delete(off, head).max() < 1e-7


def test_atoms_clear_such_a_feeder_as_the_central_market_does(market):
    network, share, bids = market
    true = ThreePhaseMarket(network, share).clear(bids, PRICES, bound=False)
    atoms = phase_case(network, share, bids, "small")
    central = central_optimum(atoms.now, atoms.flat)
    assert atoms.s_base_kva * central.solution.cost == pytest.approx(true.cost_usd_per_h, rel=1e-6)
    options = Options()
    found = solve_successive(
        atoms.now, atoms.flat, atoms.start, per_node(central.program), "nst-pac", options
    )
    assert found.converged
    # The targets of a distributed clearing.
    assert found.solution.certificate.cost == pytest.approx(central.solution.cost, rel=1e-3)
    true_price = atoms.dlmp(central.solution.y)
    assert np.abs(atoms.dlmp(found.solution.duals) - true_price).max() < 0.02 * np.abs(true_price).max()


FILES = Path(os.environ.get("VOLTIER_FEEDER_FILES", ""))


@pytest.mark.skipif(
    not (FILES / LARGE).is_file(), reason="VOLTIER_FEEDER_FILES names no folder with opendss/8500-Node"
)
def test_the_power_flow_of_the_8500_node_feeder_satisfies_the_atoms_equations():
    program, x = idle_program(*large_market(FILES / LARGE))
    off = np.abs(program.matrix @ x - program.rhs)
    assert program.n_place > 4000
    assert np.delete(off, int(program.price_row[-1])).max() < 1e-7
