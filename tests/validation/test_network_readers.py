"""Networks read from .dss and .glm files have the voltages that OpenDSS and GridLAB-D themselves find.

Two small feeders of our own hold about every element that is read. With the environment variable VOLTIER_FEEDER_FILES
naming a folder with opendss/13Bus, opendss/8500-Node and gridlabd/, public feeders are read too.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from opendssdirect import dss
from scipy import sparse
from scipy.sparse.linalg import splu

from voltier.grid.flow.threephase import solve_power_flow
from voltier.grid.readers.gridlabd import read_gridlabd
from voltier.grid.readers.opendss import read_opendss

# As GridLAB-D prints phasors: +2400-120d (degrees) or +1+2j, also with exponents.
NUMBER = r"[+-][\d.]+(?:e[+-]?\d+)?"
PHASOR = rf"({NUMBER})({NUMBER})([dij])"
FILES = os.environ.get("VOLTIER_FEEDER_FILES")
needs_files = pytest.mark.skipif(not FILES, reason="VOLTIER_FEEDER_FILES names no folder")

OWN_DSS = """
clear
set defaultbasefrequency=60
new circuit.own basekv=115 pu=1.03 angle=30 mvasc3=2000 mvasc1=2100
new transformer.sub phases=3 windings=2 xhl=8 buses=[sourcebus low] conns=[delta wye] kvs=[115 12.47]
~ kvas=[10000 10000] %loadloss=0.6 %noloadloss=0.1 %imag=0.5
new transformer.rega phases=1 xhl=0.1 %loadloss=0.01 kvas=[3000 3000] buses=[low.1 head.1] kvs=[7.2 7.2] taps=[1 1.025]
new transformer.regb phases=1 xhl=0.1 %loadloss=0.01 kvas=[3000 3000] buses=[low.2 head.2] kvs=[7.2 7.2] taps=[1 0.9875]
new transformer.regc phases=1 xhl=0.1 %loadloss=0.01 kvas=[3000 3000] buses=[low.3 head.3] kvs=[7.2 7.2] taps=[1 1.0125]
new linecode.abc nphases=3 units=mi normamps=530
~ rmatrix=[0.4576 | 0.1560 0.4666 | 0.1535 0.1580 0.4615] xmatrix=[1.0780 | 0.5017 1.0482 | 0.3849 0.4236 1.0651]
~ cmatrix=[15.06 | -4.86 15.87 | -1.85 -3.09 14.32]
new linecode.b nphases=1 rmatrix=[1.3292] xmatrix=[1.3475] cmatrix=[12] units=mi
new line.one bus1=head bus2=mid linecode=abc length=2 units=mi
new line.two bus1=mid bus2=far linecode=abc length=8000 units=ft
new line.turned bus1=far.3.1.2 bus2=turned.2.3.1 linecode=abc length=1000 units=ft
new line.side bus1=mid.2 bus2=side.2 linecode=b length=1 units=mi
new line.switch bus1=far bus2=behind switch=y
new line.gap bus1=behind bus2=dark linecode=abc length=1 units=mi
open line.gap 2
new line.tie bus1=turned.3.1.2 bus2=mid.1.2.3 linecode=abc length=3 units=mi
new reactor.choke phases=3 bus1=far bus2=choked r=0.1 x=0.5
new transformer.service phases=3 windings=2 xhl=4 buses=[mid shop] conns=[delta wye] kvs=[12.47 0.48] kvas=[500 500]
new transformer.floats phases=3 windings=2 xhl=4 buses=[far works] conns=[delta delta] kvs=[12.47 0.48] kvas=[300 300]
new transformer.tapped phases=1 windings=3 buses=[side.2 home.1.0 home.0.2] kvs=[7.2 0.12 0.12] kvas=[25 25 25]
~ %rs=[0.6 1.2 1.2] xhl=2.04 xht=2.04 xlt=1.36 %noloadloss=0.2 %imag=0.5
new capacitor.wye bus1=far phases=3 kvar=300 kv=12.47
new capacitor.delta bus1=mid phases=3 conn=delta kvar=150 kv=12.47
new load.pq bus1=far phases=3 kv=12.47 kw=900 kvar=300 model=1
new load.z bus1=mid.1 phases=1 kv=7.2 kw=150 kvar=60 model=2
new load.i bus1=mid.3.1 phases=1 conn=delta kv=12.47 kw=120 kvar=70 model=5
new load.cvr bus1=choked.2 phases=1 kv=7.2 kw=80 kvar=30 model=4 cvrwatts=1 cvrvars=2
new load.mixed bus1=turned phases=3 conn=delta kv=12.47 kw=300 kvar=90 model=8 zipv=[0.3 0.2 0.5 0.6 0.3 0.1 0.7]
new load.pquad bus1=behind.1 phases=1 kv=7.2 kw=60 kvar=40 model=3
new load.shop bus1=shop phases=3 kv=0.48 kw=210 kvar=50 status=fixed
new load.works bus1=works phases=3 conn=delta kv=0.48 kw=150 kvar=80
new load.half bus1=home.1 phases=1 kv=0.12 kw=6 kvar=1
new load.other bus1=home.2 phases=1 kv=0.12 kw=3 kvar=1
new load.stove bus1=home.1.2 phases=1 kv=0.24 kw=5 kvar=0 model=2
new generator.plant bus1=turned phases=3 kv=12.47 kw=200 pf=0.98 model=1
new pvsystem.roof bus1=shop phases=3 kv=0.48 kva=60 pmpp=50 irradiance=0.8 pf=1
new storage.pack bus1=mid phases=3 kv=12.47 kwrated=50 kwhrated=200 state=discharging %discharge=60
set loadmult=0.9
"""

OWN_GLM = """
// every kind of element that is read
#define nominal=2401.7771
clock { timezone UTC0; starttime '2020-01-01 00:00:00'; stoptime '2020-01-01 00:00:01'; }
module powerflow { solver_method FBS; line_capacitance true; default_maximum_voltage_error 1e-6; }
object overhead_line_conductor { name acsr; geometric_mean_radius 0.00814; resistance 0.592; diameter 0.563 in; }
object underground_line_conductor { name cable; outer_diameter 1.29; conductor_gmr 0.0171; conductor_diameter 0.567;
    conductor_resistance 0.41; neutral_gmr 0.00208; neutral_diameter 0.0641; neutral_resistance 14.87;
    neutral_strands 13; insulation_relative_permitivitty 2.3; }
object underground_line_conductor { name taped; outer_diameter 1.06; conductor_gmr 0.0111; conductor_diameter 0.368;
    conductor_resistance 0.97; shield_gmr 0.0365; shield_resistance 18.0; shield_thickness 0.005;
    shield_diameter 0.88; neutral_gmr 0; neutral_strands 0; }
object line_spacing { name pole; distance_AB 2.5; distance_AC 7.0; distance_BC 4.5; distance_AN 5.656854;
    distance_BN 4.272002; distance_CN 5.0; distance_AE 28; distance_BE 28; distance_CE 28; distance_NE 24; }
object line_spacing { name trench; distance_AB 0.5; distance_AC 1.0; distance_BC 0.5; }
object line_configuration { name open_wire; spacing pole;
    conductor_A acsr; conductor_B acsr; conductor_C acsr; conductor_N acsr; }
object line_configuration { name buried; conductor_A cable; conductor_B cable; conductor_C cable; spacing trench; }
object line_configuration { name shielded; conductor_A taped; conductor_B taped; conductor_C taped; spacing trench; }
object line_configuration { name matrix; z11 0.4576+1.0780j; z12 0.1560+0.5017j; z13 0.1535+0.3849j;
    z21 0.1560+0.5017j; z22 0.4666+1.0482j; z23 0.1580+0.4236j; z31 0.1535+0.3849j; z32 0.1580+0.4236j;
    z33 0.4615+1.0651j; c11 15.06; c12 -4.86; c13 -1.85; c21 -4.86; c22 15.87; c23 -3.09; c31 -1.85; c32 -3.09;
    c33 14.32; }
object node { name head; phases ABCN; bustype SWING; nominal_voltage ${nominal};
    voltage_A 2449.8126; voltage_B 2449.8126-120.0d; voltage_C 2449.8126+120.0d; }
object node { name regulated; phases ABCN; nominal_voltage ${nominal}; }
object regulator { name reg; phases ABC; from head; to regulated;
    configuration object regulator_configuration { name regc; connect_type WYE_WYE; raise_taps 16; lower_taps 16;
        regulation 0.1; band_center 2401; band_width 40; time_delay 30; Control MANUAL; Type B;
        tap_pos_A 4; tap_pos_B -3; tap_pos_C 2; }; }
object overhead_line { name l1; phases ABCN; from regulated; to mid; length 0.5 mile; configuration open_wire; }
object load { name mid; phases ABCN; nominal_voltage ${nominal};
    base_power_A 60000; power_fraction_A 0.5; current_fraction_A 0.3; impedance_fraction_A 0.2;
    power_pf_A 0.9; current_pf_A 0.95; impedance_pf_A -0.97;
    constant_power_B 80 kVA; constant_current_C -10+18.0j;
    object capacitor { name cap; phases ABCD; phases_connected ABCD; control MANUAL; nominal_voltage ${nominal};
        capacitor_A 20 kVAr; capacitor_B 20000; capacitor_C 20000; switchA CLOSED; switchB CLOSED; switchC OPEN; };
}
object switch { name sw; phases ABCN; from mid; to mid2; status CLOSED; }
object node { name mid2; phases ABCN; nominal_voltage ${nominal}; }
object underground_line { name l2; phases ABC; from mid2; to far; length 1500; configuration buried; }
object load { name far; phases ABCD; nominal_voltage ${nominal};
    constant_power_A 90000+30000j; constant_impedance_BC 300+100j; constant_current_CA -8+12j; }
object overhead_line { name l3; phases ABC; from far; to deep; length 2000; configuration matrix; }
object node { name deep; phases ABCN; nominal_voltage ${nominal}; }
object underground_line { name l4; phases ABC; from deep; to end; length 800; configuration shielded; }
object load { name end; phases ABCN; nominal_voltage ${nominal};
    constant_power_A 30000+10000j; constant_power_C 50000+10000j; }
object transformer_configuration { name dgy; connect_type DELTA_GWYE; install_type PADMOUNT; power_rating 300;
    primary_voltage 4160; secondary_voltage 480; resistance 0.011; reactance 0.03; }
object transformer { name xf; phases ABCN; from end; to low; configuration dgy; }
object load { name low; phases ABCN; nominal_voltage 277.128;
    constant_power_A 40000+9000j; constant_power_B 20000+9000j; constant_power_C 10000+2000j; }
object transformer_configuration { name yy; connect_type WYE_WYE; install_type PADMOUNT; power_rating 150;
    primary_voltage 4160; secondary_voltage 480; resistance 0.011; reactance 0.03;
    shunt_resistance 200; shunt_reactance 100; }
object transformer { name xy; phases ABCN; from mid2; to low2; configuration yy; }
object load { name low2; phases ABCN; nominal_voltage 277.128;
    constant_power_A 10000+2000j; constant_power_B 8000+1000j; constant_power_C 25000+5000j; }
"""

# what GridLAB-D accepts without effect at the start, put before the text that is named
HARMLESS = {
    "bustype SWING;": "groupid g; latitude 41.5; longitude -70; maximum_voltage_error 1e-6; mean_repair_time 60;",
    "phases ABC; from head;": "sense_node mid; initial_tap_A 9; msg_mode INTERNAL; rank 3;",
    "connect_type WYE_WYE; raise_taps": """dwell_time 5; CT_phase ABC; PT_phase ABC; control_level INDIVIDUAL;
        compensator_r_setting_A 2.7; compensator_x_setting_C 1.6; current_transducer_ratio 700;
        power_transducer_ratio 20; reverse_flow_control LOCK_NEUTRAL;""",
    "phases ABCN; from regulated;": "nominal_voltage 2401; groupid lines; mean_repair_time 60; status CLOSED;",
    "base_power_A 60000;": "load_class C; load_priority CRITICAL; measured_power 5; voltage_A 2000;",
    "phases ABCD; phases_connected": """voltage_set_low 2300; voltage_set_high 2500; VAr_set_low 1; VAr_set_high 2;
        current_set_low 1; current_set_high 2; pt_phase A; remote_sense far; time_delay 5; dwell_time 5;
        lockout_time 5; control_level INDIVIDUAL; init_switchA_state OPEN; cap_A_switch_count 4;""",
    "phases ABCN; from mid; to mid2;": "operating_mode BANKED; phase_A_state CLOSED;",
    "connect_type DELTA_GWYE;": """powerA_rating 100; powerB_rating 100; powerC_rating 100; coolant_type MINERAL_OIL;
        cooling_type OA; rated_winding_time_constant 4; rated_top_oil_rise 4; installed_insulation_life 4;
        core_coil_weight 4; tank_fittings_weight 4; oil_volume 4; rated_winding_hot_spot_rise 80;""",
    "phases ABCN; from end;": "use_thermal_model false; aging_constant 4; ambient_temperature 4; rank 2;",
    "z11 0.4576": "rating.summer.continuous 530; rating.winter.emergency 600;",
    "distance_AB 2.5;": "groupid poles;",
}
SEVERAL_WAYS = """
clock { timezone UTC0; starttime '2020-01-01 00:00:00'; stoptime '2020-01-01 00:00:01'; }
module powerflow { solver_method NR; default_maximum_voltage_error 1e-9; default_resistance 1e-6; }
object node { name head; bustype SWING; phases ABCN; nominal_voltage 2400;
    voltage_A 2400; voltage_B 2400-120d; voltage_C 2400+120d; }
object line_configuration { name lc; z11 0.3+1.0j; z12 0.1+0.4j; z13 0.1+0.4j; z21 0.1+0.4j; z22 0.3+1.0j;
    z23 0.1+0.4j; z31 0.1+0.4j; z32 0.1+0.4j; z33 0.3+1.0j; }
object overhead_line { name one; from head; to first; phases ABCN; length 2000 ft; configuration lc; }
object load { name first; phases ABCN; nominal_voltage 2400; base_power_A 100000;
    base_power_B 100000; power_fraction_B 0.5; current_fraction_B 0.9; impedance_fraction_B 0.6;
    power_pf_B 0.8; current_pf_B 0.7; impedance_pf_B -0.9;
    base_power_C -60000; power_pf_C 0.9; constant_power_AN 5000; }
object overhead_line { name three; from first; to second; phases ABCN; length 2000 ft; configuration lc; }
object meter { name second; phases ABCN; nominal_voltage 2400; }
object capacitor { name cap; parent second; phases ABCN; nominal_voltage 2400; control MANUAL; control_level BANK;
    pt_phase A; capacitor_A 20000; capacitor_B 20000; capacitor_C 20000;
    switchA CLOSED; switchB CLOSED; switchC CLOSED; }
object switch { name s; from second; to third; phases ABC; status CLOSED; operating_mode INDIVIDUAL;
    phase_B_state OPEN; }
object load { name third; phases ABCN; nominal_voltage 2400; constant_power_A 20000; constant_power_C 30000; }
"""

RUN_GRIDLABD = """
import json, sys
from gridlabd import DirectGridLabD
model = DirectGridLabD()
model.setup_before_load()
model.load_glm([sys.argv[1]])
model.setup_after_load()
model.start()
model.run()
found = {name: [model.get_property(name, "voltage_" + p)[1] for p in "ABC"] for name in json.loads(sys.argv[2])}
open(sys.argv[3], "w").write(json.dumps(found))
"""


def write(folder, name, text):
    path = folder / name
    path.write_text(text)
    return path


def voltages(network):
    """Phasors [p.u.] of every fed (bus, phase), by a plain fixed-point iteration on the read numbers alone."""
    y, loads = sparse.csc_matrix(network.y), network.loads
    source = np.full(3, network.v_source_pu, dtype=complex)
    factor, unloaded = splu(y[3:, 3:]), -(y[3:, :3] @ source)
    v = np.concatenate([source, factor.solve(unloaded)])
    for _ in range(200):
        across = loads.across @ v
        u = np.abs(across) / loads.v_nominal_pu
        s = loads.s_power + loads.s_current * u + loads.s_impedance * u**2
        drawn = loads.across.conj().T @ np.conj(s / across)
        following = np.concatenate([source, factor.solve(unloaded - drawn[3:])])
        step, v = np.abs(following - v).max(), following
        if step < 1e-11:
            return places(network, v)
    raise AssertionError(step)


def places(network, v):
    phasor = v * np.exp(1j * network.rotation_rad)
    fed = [(b, p) for b, p in zip(*np.nonzero(network.bus_node >= 0), strict=True)]
    return {(network.bus[b], p): network.bus_ratio[b, p] * phasor[network.bus_node[b, p]] for b, p in fed}


def by_opendss(path, network, *, settle_controls):
    """OpenDSS's own solution on the network's base voltages, in a context of its own."""
    context = dss.NewContext()
    context.Basic.AllowChangeDir(False)
    run = context.Text.Command
    run(f'compile "{path}"')
    run(
        f"set tolerance=1e-9 maxiterations=100 maxcontroliter=100 controlmode={'static' if settle_controls else 'off'}"
    )
    run("solve")
    assert context.Solution.Converged()
    found = {}
    for bus, kv_ll in zip(network.bus, network.kv_ll, strict=True):
        if bus != "stiff_source":
            context.Circuit.SetActiveBus(bus)
            volts = np.array(context.Bus.Voltages()).view(complex) / (kv_ll * 1000.0 / np.sqrt(3.0))
            found.update({(bus, n - 1): volt for n, volt in zip(context.Bus.Nodes(), volts, strict=True)})
    return found


def by_gridlabd(path, network, result):
    pytest.importorskip("gridlabd")
    arguments = [str(path), json.dumps(list(network.bus)), str(result)]
    # a process of its own with a limit: GridLAB-D holds global state, and can hang after a failure
    subprocess.run(
        [sys.executable, "-c", RUN_GRIDLABD, *arguments],
        cwd=path.parent,
        timeout=60,
        capture_output=True,
        check=True,
    )
    base_v = dict(zip(network.bus, network.kv_ll * 1000.0 / np.sqrt(3.0), strict=True))
    found = {}
    for bus, texts in json.loads(result.read_text()).items():
        for phase, text in enumerate(texts):
            size, angle, kind = re.fullmatch(PHASOR, text.split()[0]).groups()
            if kind == "d":
                volts = float(size) * np.exp(1j * np.deg2rad(float(angle)))
            else:
                volts = complex(float(size), float(angle))
            found[bus, phase] = volts / base_v[bus]
    return found


def largest_difference(ours, theirs):
    return max(abs(v - theirs[place]) for place, v in ours.items() if place in theirs)


def test_own_dss_file_has_the_voltages_of_opendss(tmp_path):
    path = write(tmp_path, "own.dss", OWN_DSS)
    network = read_opendss(path)
    ours = voltages(network)
    theirs = by_opendss(path, network, settle_controls=False)
    dark = {place for place in theirs if place not in ours}
    # what hangs behind the open end is left out; all else is there
    assert dark == {("dark", 0), ("dark", 1), ("dark", 2)}
    # behind the delta-delta unit nothing fixes the voltage to ground but a tie of 1e-6 of its rating against
    # singularity, which rounding beside the admittance of the switch blurs: only line voltages are compared there
    works = [[found.pop(("works", p)) for p in range(3)] for found in (ours, theirs)]
    between = [np.roll(phasors, -1) - phasors for phasors in map(np.array, works)]
    # the same admittances and loads: OpenDSS's stopping tolerance of 1e-9 is what is left
    assert largest_difference(ours, theirs) < 1e-8
    assert np.abs(between[0] - between[1]).max() < 1e-8


def test_angles_of_a_read_network_are_nominal_where_windings_shift(tmp_path):
    network = read_opendss(write(tmp_path, "own.dss", OWN_DSS))
    v = solve_power_flow(network, np.zeros(len(network.node_bus), dtype=complex)).v
    # no voltage drop of this feeder turns a phase by more than 6 degrees
    assert np.abs(np.angle(v, deg=True)).max() < 6.0
    home = network.bus_node[network.bus.index("home")]
    turned = np.rad2deg(network.rotation_rad[home[:2]])
    assert abs((turned[0] - turned[1]) % 360.0 - 180.0) < 1e-9
    # both end at 1e-10 or less; behind the delta-delta unit the voltage to ground is all but free, and left out
    ours, plain = places(network, v), voltages(network)
    assert max(abs(ours[place] - plain[place]) for place in ours if place[0] != "works") < 1e-8


def test_ratings_are_taken_over_unless_they_are_the_default(tmp_path):
    network = read_opendss(write(tmp_path, "own.dss", OWN_DSS))
    rating = dict(zip(network.branches.name, network.branches.i_max_pu, strict=True))
    base_a = network.s_phase_kva / (network.kv_ll[network.bus.index("head")] / np.sqrt(3.0))
    assert rating["line.one"] == pytest.approx(530.0 / base_a, rel=1e-9)
    assert np.isinf(rating["line.side"])


def test_own_glm_file_has_the_voltages_of_gridlabd(tmp_path):
    path = write(tmp_path, "own.glm", OWN_GLM)
    network = read_gridlabd(path)
    theirs = by_gridlabd(path, network, tmp_path / "voltages.json")
    # GridLAB-D prints six digits (5e-6 at 2450 V of 2402 V nominal) and iterates to 1e-6 V
    assert largest_difference(voltages(network), theirs) < 1e-5
    assert len(voltages(network)) == 27


def test_properties_passed_over_change_nothing_in_gridlabd(tmp_path):
    text = OWN_GLM
    for place, properties in HARMLESS.items():
        assert text.count(place) == 1
        text = text.replace(place, f"{properties} {place}")
    plain = read_gridlabd(write(tmp_path, "plain.glm", OWN_GLM))
    path = write(tmp_path, "own.glm", text)
    network = read_gridlabd(path)
    np.testing.assert_array_equal(network.y.toarray(), plain.y.toarray())
    np.testing.assert_array_equal(network.loads.s_power, plain.loads.s_power)
    theirs = by_gridlabd(path, network, tmp_path / "voltages.json")
    # as without them: six printed digits
    assert largest_difference(voltages(network), theirs) < 1e-5


def test_fractions_banks_and_open_phases_mean_what_they_mean_to_gridlabd(tmp_path):
    path = write(tmp_path, "ways.glm", SEVERAL_WAYS)
    network = read_gridlabd(path)
    ours = voltages(network)
    theirs = by_gridlabd(path, network, tmp_path / "voltages.json")
    assert {place for place in theirs if place not in ours} == {("third", 1)}
    # six printed digits of 2400 V are 2e-6
    assert largest_difference(ours, theirs) < 1e-5


def test_delta_delta_winding_has_no_zero_sequence(tmp_path):
    text = OWN_GLM.replace("connect_type DELTA_GWYE", "connect_type DELTA_DELTA")
    text = text.replace("object load { name low; phases ABCN", "object load { name low; phases ABCD")
    ours = voltages(read_gridlabd(write(tmp_path, "delta.glm", text)))
    low = [ours["low", p] for p in range(3)]
    # the tie to ground is a millionth of the short-circuit admittance, and nothing draws zero sequence
    assert abs(sum(low)) < 1e-6
    assert 0.9 < min(np.abs(low)) < max(np.abs(low)) < 1.1


@needs_files
@pytest.mark.parametrize(
    ("file", "settle_controls", "nodes"),
    [
        ("13Bus/IEEE13Nodeckt.dss", False, 44),
        ("8500-Node/Master-unbal.dss", True, 8534),
        ("8500-Node/Master.dss", True, 8534),
    ],
)
def test_public_dss_files(file, settle_controls, nodes):
    path = Path(FILES) / "opendss" / file
    network = read_opendss(path, settle_controls=settle_controls)
    assert len(network.node_bus) == nodes
    theirs = by_opendss(path, network, settle_controls=settle_controls)
    ours = voltages(network)
    assert set(theirs) == {place for place in ours if place[0] != "stiff_source"}
    # measured 2.4e-9, OpenDSS's stopping tolerance
    assert largest_difference(ours, theirs) < 1e-7


@needs_files
@pytest.mark.parametrize(
    ("file", "included", "nodes"),
    [
        ("test_IEEE-123_FBS.glm", None, 247),
        ("test_IEEE_34_NR.glm", "data_configurations_34_node.glm", 129),
    ],
)
def test_public_glm_files(tmp_path, file, included, nodes):
    source, folder = Path(FILES) / "gridlabd", tmp_path / "model"
    folder.mkdir()
    path = Path(shutil.copy(source / file, folder))
    if included:
        shutil.copy(source / included, tmp_path)
    network = read_gridlabd(path)
    assert len(network.node_bus) == nodes
    theirs = by_gridlabd(path, network, tmp_path / "voltages.json")
    # measured 3e-6 (123) and 9e-6 (34): six printed digits, and a stopping rule of 1e-6 of nominal per node
    assert largest_difference(voltages(network), theirs) < 3e-5
