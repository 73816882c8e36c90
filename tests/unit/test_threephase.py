"""The three-phase network: nodes, ratios, admittances, what it refuses, and its loads against OpenDSS."""

from dataclasses import replace

import numpy as np
import pytest

from voltier.grid.errors import InputError
from voltier.grid.feeder import SpotLoads, Transformers, read_feeder
from voltier.grid.flow.nodal import branch_currents, bus_voltages, injection_needed
from voltier.grid.flow.opendss import OpenDssFlow
from voltier.grid.flow.threephase import solve_power_flow
from voltier.grid.perunit import PerUnit
from voltier.grid.threephase import ANGLE_RAD
from voltier.grid.threephase_build import retap_three_phase, three_phase_network

# OpenDSS needs a small reactance in each regulator and in the source; together they move no voltage by more
OPENDSS_PU = 1e-6


@pytest.fixture(scope="module")
def feeder():
    return read_feeder("ieee123")


@pytest.fixture(scope="module")
def network(feeder):
    return three_phase_network(feeder, feeder.regulators.published_tap)


def spot_loads(feeder, *rows):
    """Put other loads on a feeder: rows of bus name, connection, phase, model, kW, kvar."""
    bus, connection, phase, model, p_kw, q_kvar = zip(*rows, strict=True)
    at = np.array([feeder.bus.index(name) for name in bus])
    loads = SpotLoads(at, connection, phase, model, np.array(p_kw, float), np.array(q_kvar, float))
    return replace(feeder, spot_loads=loads)


def without_loads(feeder):
    none = np.zeros(0)
    return replace(feeder, spot_loads=SpotLoads(none.astype(np.int64), (), (), (), none, none))


def solved(network):
    return solve_power_flow(network, np.zeros(len(network.node_bus), dtype=complex)).v


def phasors(network):
    """Voltages at the buses in OpenDSS's frame."""
    return bus_voltages(network, solved(network)) * np.exp(1j * ANGLE_RAD)


def opendss(feeder, tap):
    zero = np.zeros((len(feeder.bus), 3))
    return OpenDssFlow(feeder, spot_loads=True).solve(zero, zero, tap).v_pu


def test_source_is_first_and_every_bus_has_its_node(feeder, network):
    assert network.node_bus[:3].tolist() == [feeder.source_bus] * 3
    assert network.node_phase[:3].tolist() == [0, 1, 2]
    at = network.bus_node[network.node_bus, network.node_phase]
    assert at.tolist() == list(range(len(network.node_bus)))
    assert (network.bus_node[network.bus_node >= 0] < len(network.node_bus)).all()
    dark = {feeder.bus[k] for k in np.flatnonzero((network.bus_node < 0)[:, 0] & feeder.has_phase[:, 0])}
    # the unloaded delta island and the stubs behind open switches
    assert dark == {"610", "251", "451", "350"}


def test_closed_switch_joins_and_regulator_gives_the_ratio(feeder, network):
    row = {name: k for k, name in enumerate(feeder.bus)}
    assert (network.bus_node[row["13"]] == network.bus_node[row["152"]]).all()
    assert (network.bus_node[row["150"]] == network.bus_node[row["149"]]).all()
    assert network.bus_ratio[row["150r"]] == pytest.approx(1 + 7 * 0.00625, abs=0)
    assert network.bus_ratio[row["160r"]].tolist() == [1 + 8 * 0.00625, 1 + 0.00625, 1 + 5 * 0.00625]
    # phase b passes bus 25 without a regulator, so bus 25r has none
    assert network.bus_node[row["25r"], 1] == -1


def test_limits_keep_every_bus_of_a_node(feeder, network):
    live = network.bus_node >= 0
    node, ratio = network.bus_node[live], network.bus_ratio[live]
    # a limit divided by the ratio and multiplied again may be off by rounding
    assert (ratio * network.v_max_pu[node] <= 1.05 + 1e-15).all()
    assert (ratio * network.v_min_pu[node] >= 0.95 - 1e-15).all()
    node = network.bus_node[feeder.bus.index("160r"), 0]
    assert network.v_max_pu[node] == pytest.approx(1.05 / 1.05)


def test_admittance_is_symmetric_out_of_the_rotated_frame(network):
    turn = np.exp(1j * ANGLE_RAD[network.node_phase])
    y = turn[:, None] * network.y.toarray() * turn.conj()
    # sums of up to ten parts of size 1e4: rounding of 1e-16 each
    assert np.abs(y - y.T).max() < 1e-11


def test_nodal_admittance_is_the_sum_of_branches_and_capacitors(feeder, network):
    v = np.random.default_rng(1).normal(size=(2, len(network.node_bus))).T @ [1, 1j]
    branches = network.branches
    i_from, i_to = branch_currents(network, v)
    current = np.zeros(len(v) + 1, dtype=complex)  # the last place takes absent phases
    np.add.at(current, branches.from_node, branches.from_ratio * i_from)
    np.add.at(current, branches.to_node, branches.to_ratio * i_to)
    capacitors = feeder.capacitors
    node = network.bus_node[capacitors.bus, capacitors.phase]
    ratio = network.bus_ratio[capacitors.bus, capacitors.phase]
    np.add.at(current, node, 1j * capacitors.q_kvar / network.s_phase_kva * ratio**2 * v[node])
    assert current[:-1] == pytest.approx(network.y @ v, abs=1e-9)  # rounding of admittances of 1e4
    assert not current[-1]


def test_line_by_hand(feeder, network):
    k = network.branches.name.index(feeder.lines.name[0])
    letters = feeder.lines.has_phase[0]
    pick = np.ix_(letters, letters)
    z = (feeder.lines.r_ohm[0] + 1j * feeder.lines.x_ohm[0])[pick]
    turn = np.exp(1j * ANGLE_RAD[letters])
    base = PerUnit(1000.0, 4.16).z_base_ohm
    y = turn.conj()[:, None] * np.linalg.inv(z) * turn * base
    assert network.branches.y_ft[k][pick] == pytest.approx(-y, rel=1e-12)
    half = turn.conj()[:, None] * (0.5e-6j * feeder.lines.b_us[0][pick]) * turn * base
    assert network.branches.y_ff[k][pick] == pytest.approx(y + half, rel=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_retap_equals_a_new_build(feeder, network, seed):
    tap = np.random.default_rng(seed).integers(-16, 17, len(feeder.regulators.name))
    moved, built = retap_three_phase(network, feeder, tap), three_phase_network(feeder, tap)
    # the same sums in the same order: the same bits
    for name in ("bus_ratio", "v_min_pu", "v_max_pu"):
        assert np.array_equal(getattr(moved, name), getattr(built, name))
    for name in ("from_ratio", "to_ratio", "from_node", "y_ff", "y_tf"):
        assert np.array_equal(getattr(moved.branches, name), getattr(built.branches, name))
    for a, b in ((moved.y, built.y), (moved.loads.across, built.loads.across)):
        assert np.array_equal(a.data, b.data)
        assert np.array_equal(a.indices, b.indices)
        assert np.array_equal(a.indptr, b.indptr)
    assert np.array_equal(moved.y.indices, network.y.indices)
    assert not np.array_equal(moved.y.data, network.y.data)


def test_bases_do_not_matter(feeder):
    tap = feeder.regulators.published_tap
    v = [solved(three_phase_network(feeder, tap, s_base_kva=base)) for base in (1000.0, 5000.0)]
    assert v[0] == pytest.approx(v[1], abs=1e-9)  # both solved to 1e-10 of their base


MODELS = ("PQ", "I", "Z")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("bus", "connection", "phase"), [("66", "wye", "c"), ("47", "delta", "bc"), ("76", "delta", "ca")]
)
def test_each_load_model_agrees_with_opendss(feeder, bus, connection, phase, model):
    # heavy, so that the three models differ by much more than the tolerance
    loaded = spot_loads(feeder, (bus, connection, phase, model, 600.0, 300.0))
    tap = feeder.regulators.published_tap
    assert phasors(three_phase_network(loaded, tap)) == pytest.approx(
        np.where(three_phase_network(loaded, tap).bus_node >= 0, opendss(loaded, tap), np.nan),
        abs=OPENDSS_PU,
        nan_ok=True,
    )


def test_load_models_differ(feeder):
    tap = feeder.regulators.published_tap
    drawn = [
        injection_needed(network, solved(network))[:3].real.sum()
        for model in MODELS
        for network in [three_phase_network(spot_loads(feeder, ("66", "wye", "c", model, 600.0, 300.0)), tap)]
    ]
    assert np.abs(np.diff(drawn)).min() > 1e-3


def test_load_at_the_regulated_side_sees_its_own_voltage(feeder):
    loaded = spot_loads(
        feeder, ("160r", "wye", "a", "Z", 300.0, 0.0), ("160r", "delta", "ab", "I", 300.0, 50.0)
    )
    tap = np.full(9, 16)
    ours, theirs = phasors(three_phase_network(loaded, tap)), opendss(loaded, tap)
    bus = feeder.bus.index("160r")
    assert ours[bus] == pytest.approx(theirs[bus], abs=OPENDSS_PU)


def test_capacitor_at_the_regulated_side_sees_its_own_voltage(feeder):
    bare = without_loads(feeder)
    capacitors = replace(feeder.capacitors, bus=np.full(6, feeder.bus.index("160r")))
    moved = replace(bare, capacitors=capacitors)
    tap = np.full(9, 16)
    ours, theirs = phasors(three_phase_network(moved, tap)), opendss(moved, tap)
    bus = feeder.bus.index("160r")
    assert ours[bus] == pytest.approx(theirs[bus], abs=OPENDSS_PU)


def with_transformers(feeder, *conns):
    """Feed bus 610 from 61s by parallel transformers of the given windings, and load it."""
    n = len(conns)
    ends = [np.full(n, feeder.bus.index(name)) for name in ("61s", "610")]
    sizes = [np.full(n, size) for size in (150.0, 4.16, 0.48)]
    r_percent, x_percent = np.full(n, 1.27), np.full(n, 2.72)
    names = tuple(f"xfm{k}" for k in range(n))
    transformers = Transformers(names, *ends, *sizes, conns, conns, r_percent, x_percent)
    loads = (("610", "wye", "a", "PQ", 60.0, 20.0), ("610", "delta", "bc", "PQ", 30.0, 10.0))
    return replace(spot_loads(feeder, *loads), transformers=transformers)


@pytest.mark.parametrize("conns", [("wye_grounded",), ("wye_grounded", "delta")])
def test_transformers_agree_with_opendss(feeder, conns):
    wound = with_transformers(feeder, *conns)
    tap = feeder.regulators.published_tap
    ours, theirs = phasors(three_phase_network(wound, tap)), opendss(wound, tap)
    bus = feeder.bus.index("610")
    assert np.abs(ours[bus] - theirs[bus]).max() < OPENDSS_PU
    # the load pulls the three phases apart, or the delta bank would have nothing to show
    assert np.ptp(np.abs(ours[bus])) > 0.001


def test_delta_windings_carry_no_sum_of_phases(feeder):
    wound = with_transformers(feeder, "wye_grounded", "delta")
    network = three_phase_network(wound, feeder.regulators.published_tap)
    i_from, i_to = branch_currents(network, solved(network))
    turn = np.exp(1j * ANGLE_RAD)
    wye, delta = (network.branches.name.index(name) for name in ("xfm0", "xfm1"))
    for current in (i_from, i_to):
        assert abs(current[delta] @ turn) < 1e-10  # rounding of admittances of 10 times voltages of 1
        assert abs(current[wye] @ turn) > 1e-2


def test_load_that_floats_is_refused(feeder):
    floating = spot_loads(feeder, ("610", "wye", "a", "PQ", 1.0, 0.0))
    with pytest.raises(InputError, match=r"610.*delta windings"):
        three_phase_network(floating, feeder.regulators.published_tap)
    network = three_phase_network(floating, feeder.regulators.published_tap, loads=False)
    assert network.loads.across.shape[0] == 0


def test_capacitor_that_nothing_feeds_is_refused(feeder):
    closed = ("sw1", "sw2", "sw3", "sw5", "sw6")
    with pytest.raises(InputError, match=r"capacitors, bus 83.*not joined"):
        three_phase_network(feeder, feeder.regulators.published_tap, closed=closed)


def test_unknown_switch_is_refused(feeder):
    with pytest.raises(InputError, match="sw99"):
        three_phase_network(feeder, feeder.regulators.published_tap, closed=("sw1", "sw99"))


def bypassed(feeder):
    """Lay a switch past the regulator at the head, another past that switch."""
    switches, extra = feeder.switches, [feeder.bus.index(name) for name in ("150", "149")]
    both = replace(
        switches,
        name=(*switches.name, "bypass", "again"),
        from_bus=np.append(switches.from_bus, [extra[0]] * 2),
        to_bus=np.append(switches.to_bus, [extra[1]] * 2),
        has_phase=np.vstack([switches.has_phase, np.ones((2, 3), dtype=bool)]),
        closed=np.append(switches.closed, [True, True]),
    )
    return replace(feeder, switches=both)


def test_ideal_loop_of_different_ratios_is_refused(feeder):
    looped = bypassed(feeder)
    neutral = np.array([0, 0, 0, -1, 0, -1, 8, 1, 5])
    network = three_phase_network(looped, neutral)
    assert len(network.node_bus) == len(three_phase_network(feeder, neutral).node_bus)
    raised = neutral + np.array([0, 1, 0, 0, 0, 0, 0, 0, 0])
    with pytest.raises(InputError, match=r"reg1.*1\.00625|reg1.*0\.99"):
        retap_three_phase(network, looped, raised)
    with pytest.raises(InputError, match="bypass"):
        three_phase_network(looped, raised)
    opened = tuple(name for name in looped.switches.name[:6])
    assert three_phase_network(looped, raised, closed=opened).bus_ratio.max() > 1


def test_switch_between_different_voltages_is_refused(feeder):
    switches = feeder.switches
    wrong = replace(
        feeder,
        switches=replace(
            switches, to_bus=np.where(np.arange(11) == 8, feeder.bus.index("610"), switches.to_bus)
        ),
    )
    with pytest.raises(InputError, match="sw9"):
        three_phase_network(wrong, feeder.regulators.published_tap, closed=(*switches.name[:6], "sw9"))


def test_retap_of_a_network_of_fixed_ratios_is_refused(feeder, network):
    with pytest.raises(InputError, match="retap"):
        retap_three_phase(replace(network, tap_layout=None), feeder, feeder.regulators.published_tap)
