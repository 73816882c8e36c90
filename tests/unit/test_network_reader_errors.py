"""Readers of .dss and .glm files: line constants, syntax, and errors that name file, line and remedy."""

import numpy as np
import pytest

from voltier.grid.errors import InputError
from voltier.grid.readers.glm_syntax import parse_glm
from voltier.grid.readers.gridlabd import read_gridlabd
from voltier.grid.readers.line_constants import (
    cable_capacitance_uf_per_mile,
    capacitance_uf_per_mile,
    carson_ohm_per_mile,
    concentric_neutral_ft,
    without_grounded,
)
from voltier.grid.readers.opendss import read_opendss

DSS = """
new circuit.small basekv=12.47 pu=1 r1=0 x1=0.01 r0=0 x0=0.01
new line.one bus1=sourcebus bus2=far r1=0.3 x1=0.6 r0=0.5 x0=1.2 length=1 units=mi
new load.end bus1=far phases=3 kv=12.47 kw=300 kvar=100
"""
GLM = """
module powerflow;
object node { name head; phases ABCN; bustype SWING; nominal_voltage 7200; }
object line_configuration { name z; z11 0.4+1.0j; z22 0.4+1.0j; z33 0.4+1.0j; }
object overhead_line { phases ABCN; name l; from head; to far; length 1000 ft; configuration z; }
object load { name far; phases ABCN; nominal_voltage 7200; constant_power_A 90 kVA; }
"""


def dss(tmp_path, text):
    path = tmp_path / "case.dss"
    path.write_text(text)
    return path


def glm(tmp_path, text):
    path = tmp_path / "case.glm"
    path.write_text(text)
    return path


def problems(read, path):
    with pytest.raises(InputError) as caught:
        read(path)
    return caught.value.problems


def test_overhead_geometry_gives_the_published_matrix():
    # IEEE 13-node feeder, configuration 601: 556,500 ACSR phases, 4/0 ACSR neutral, spacing 500 (28 ft, neutral 24 ft)
    x_ft, height_ft = (
        np.array([2.5, 0.0, 7.0, 4.0]),
        np.array([28.0, 28.0, 28.0, 24.0]),
    )  # phases a, b, c, neutral
    apart = np.hypot(x_ft[:, None] - x_ft, height_ft[:, None] - height_ft)
    gmr_ft, diameter_in = np.array([0.0313, 0.0313, 0.0313, 0.00814]), np.array([0.927, 0.927, 0.927, 0.563])
    r_ohm = np.array([0.1859, 0.1859, 0.1859, 0.592])
    z_ohm = without_grounded(carson_ohm_per_mile(r_ohm, apart + np.diag(gmr_ft), 60.0), 3)
    published = [
        [0.3465 + 1.0179j, 0.1560 + 0.5017j, 0.1580 + 0.4236j],
        [0.1560 + 0.5017j, 0.3375 + 1.0478j, 0.1535 + 0.3849j],
        [0.1580 + 0.4236j, 0.1535 + 0.3849j, 0.3414 + 1.0348j],
    ]
    # four printed decimals
    np.testing.assert_allclose(z_ohm, published, atol=1e-4)
    b_us = 2.0 * np.pi * 60.0 * capacitance_uf_per_mile(apart + np.diag(diameter_in / 24.0), height_ft, 3)
    published_us = [[6.2998, -1.9958, -1.2595], [-1.9958, 5.9597, -0.7417], [-1.2595, -0.7417, 5.6386]]
    # the document rounds the constant 1/(2 pi eps) to 11.17689
    np.testing.assert_allclose(b_us, published_us, rtol=2e-4)


def test_cable_geometry_gives_the_published_matrix():
    # configuration 606: 250,000 AA with 13 strands of concentric neutral, 6 inches apart
    circle_ft = (1.29 - 0.0641) / 24.0
    ring_ft = concentric_neutral_ft(0.00208, 13, circle_ft)
    at_ft = np.array([0.0, 0.5, 1.0, 0.0, 0.5, 1.0])
    apart = np.abs(at_ft[:, None] - at_ft)
    apart[apart == 0.0] = circle_ft
    np.fill_diagonal(apart, [0.0171] * 3 + [ring_ft] * 3)
    z_ohm = without_grounded(carson_ohm_per_mile(np.array([0.41] * 3 + [14.8722 / 13] * 3), apart, 60.0), 3)
    published = [[0.7982 + 0.4463j, 0.3192 + 0.0328j, 0.2849 - 0.0143j], [0.3192 + 0.0328j, 0.7891 + 0.4041j]]
    np.testing.assert_allclose(z_ohm[0], published[0], atol=2e-4)
    np.testing.assert_allclose(z_ohm[1, :2], published[1], atol=2e-4)
    c_uf = cable_capacitance_uf_per_mile(2.3, circle_ft * 12.0, 0.567 / 2.0, 0.0641 / 2.0, 13)
    # 96.8897 µS/mile published; permittivity and radii are rounded there
    assert 2.0 * np.pi * 60.0 * c_uf == pytest.approx(96.8897, rel=2e-3)


def test_opendss_rejecting_a_file_is_an_input_error(tmp_path):
    found = problems(read_opendss, dss(tmp_path, DSS + "new lien.two bus1=far bus2=end\n"))
    assert found[0].where == "case.dss"
    assert "lien" in str(found[0].value)


def test_missing_and_empty_dss_files(tmp_path):
    assert problems(read_opendss, tmp_path / "none.dss")[0].value == "missing"
    assert problems(read_opendss, dss(tmp_path, "clear\n"))


@pytest.mark.parametrize(
    "text",
    [
        DSS.replace("kv=12.47 kw", "kv=34.5 kw"),
        DSS.replace("kv=12.47 kw", "kv=7.2 kw"),
        DSS + "edit load.end vminpu=1.02 vmaxpu=1.1\n",
    ],
)
def test_loads_that_opendss_turns_to_an_impedance_are_named(tmp_path, text):
    found = problems(read_opendss, dss(tmp_path, text))
    assert [(p.where, p.field) for p in found] == [("case.dss: load.end", "voltage over rated voltage")]
    assert "vminpu=" in found[0].remedy


def test_loads_of_constant_impedance_may_stand_at_any_voltage(tmp_path):
    text = DSS.replace("kv=12.47 kw", "model=2 kv=20 kw")
    network = read_opendss(dss(tmp_path, text))
    np.testing.assert_allclose(network.loads.s_impedance.sum() * network.s_phase_kva, 300 + 100j, rtol=1e-12)


def test_a_failed_file_leaves_nothing_behind(tmp_path):
    problems(read_opendss, dss(tmp_path, DSS + "new lien.two bus1=far bus2=end\n"))
    assert read_opendss(dss(tmp_path, DSS)).bus == ("stiff_source", "sourcebus", "far")


@pytest.mark.parametrize(
    ("text", "name", "field", "remedy"),
    [
        ("new vsource.second bus1=far basekv=12.47 pu=1", "case.dss", "vsource", "exactly one"),
        ("new isource.i bus1=far phases=3 amps=1", "Isource.i", "class", "not supported"),
        ("new load.neutral bus1=far.1.4 phases=1 kv=7.2 kw=1", "neutral", "node", "Kron"),
        (
            "new load.cvr bus1=far.1 phases=1 kv=7.2 kw=1 model=4 cvrwatts=0.8",
            "load.cvr",
            "cvrwatts",
            "0, 1 or 2",
        ),
        (
            "new generator.g bus1=far phases=3 kv=12.47 kw=10 model=3",
            "generator.g",
            "model",
            "constant power",
        ),
    ],
)
def test_what_dss_files_hold_and_networks_cannot(tmp_path, text, name, field, remedy):
    found = problems(read_opendss, dss(tmp_path, DSS + text + "\n"))
    assert any(name in p.where and field in p.field and remedy in p.remedy for p in found), found


def test_three_buses_at_one_transformer_are_refused(tmp_path):
    text = "new transformer.t windings=3 buses=[far low third] conns=[wye wye wye] kvs=[12.47 0.48 0.48] kvas=[9 9 9]\n"
    assert any("two buses" in p.remedy for p in problems(read_opendss, dss(tmp_path, DSS + text)))


def test_bases_are_found_without_voltage_bases_in_the_file(tmp_path):
    text = DSS + "new transformer.t buses=[far low] conns=[delta wye] kvs=[12.47 0.48] kvas=[50 50] xhl=4\n"
    network = read_opendss(dss(tmp_path, text))
    assert dict(zip(network.bus, network.kv_ll, strict=True)) == pytest.approx(
        {"stiff_source": 12.47, "sourcebus": 12.47, "far": 12.47, "low": 0.48}
    )


def test_glm_objects_defaults_macros_and_nesting(tmp_path):
    (tmp_path / "more.glm").write_text("object node { name other; phases A; }\n")
    text = """
# a comment
#define kind=node
#ifdef kind
#include "more.glm"
#else
nonsense
#endif
class house { double x; }
schedule s { * * * * * 1; }
module powerflow { solver_method NR; }
object ${kind}:7 { name "seven; or eight"; // the rest
  object complex_assert { target a; within 5; };
};
"""
    model = parse_glm(glm(tmp_path, text))
    assert [item.kind for item in model.objects] == ["node", "node", "complex_assert"]
    seven, inside = model.objects[1:]
    assert seven.name == "seven; or eight"
    assert seven.keys == ("node:7", "seven; or eight")
    assert inside.owner == "seven; or eight"
    assert (seven.line, inside.line, inside.line_of["target"]) == (12, 13, 13)
    assert model.settings == {"powerflow.solver_method": "NR"}


@pytest.mark.parametrize(
    ("old", "new", "where", "field", "remedy"),
    [
        ("module powerflow;", '#include "gone.glm"', "case.glm:2", "file", "provide gone.glm"),
        ("module powerflow;", "#if 1 > 0", "case.glm:2", "macro", "not supported"),
        ("module powerflow;", "nonsense;", "case.glm:2", "text", "write object"),
        ("kVA; }", "kVA;", "case.glm:6", "text", "close the object"),
        ("bustype SWING;", "", "case.glm", "bustype SWING", "exactly one"),
        (
            "configuration z",
            "configuration zz",
            "case.glm:5: overhead_line l",
            "configuration",
            "line_configuration",
        ),
        ("length 1000 ft", "length 1000 kVA", "case.glm:5", "length", "mile"),
        ("90 kVA", "evening_peak", "case.glm:6: load far", "constant_power_A", "schedules"),
        ("to far", "to nowhere", "case.glm:5: overhead_line l", "to", "name an object of class node"),
        ("phases ABCN; name l", "phases AS; name l", "case.glm:5", "phases", "S is not supported"),
        ("z11 0.4+1.0j; ", "", "case.glm:4: line_configuration z", "z11", "self impedance"),
        (
            "object load { name far",
            "object house { name h; } object load { name far",
            "house",
            "class",
            "supported",
        ),
        ("constant_power_A", "constant_powr_A", "case.glm:6: load far", "constant_powr_A", "capitals count"),
        ("constant_power_A", "Constant_power_A", "load far", "Constant_power_A", "capitals count"),
        ("constant_power_A", "power_A", "case.glm:6: load far", "power_A", "constant_power"),
        ("constant_power_A 90 kVA", "current_A 40", "load far", "current_A", "constant_current"),
        ("constant_power_A 90 kVA", "shunt_BC 0.01+0.1j", "load far", "shunt_BC", "constant_impedance"),
        ("bustype SWING;", "bustype SWING; power_B 5000;", "case.glm:3: node head", "power_B", "of a load"),
        ("z22", "z2", "case.glm:4: line_configuration z", "z2", "not read"),
        ("z22", "z12 0.1+0.4j; z22", "case.glm:4: line_configuration z", "z21", "the same number as for z12"),
        ("z22", "z13 0.1+0.4j; z31 0.4+0.1j; z22", "line_configuration z", "z31", "for z13"),
        ("length 1000 ft", "length 1000 ft; leakage 1", "overhead_line l", "leakage", "not read"),
        (
            "length 1000 ft",
            "length 1000 ft; status OPEN",
            "overhead_line l",
            "status",
            "open switch in series",
        ),
        ("90 kVA;", "90 kVA; service_status OUT_OF_SERVICE;", "load far", "service_status", "remove"),
        ("bustype SWING;", "bustype SWING_PQ;", "case.glm:3: node head", "bustype", "PQ, SWING"),
        ("90 kVA;", "90 kVA; bustype PV;", "case.glm:6: load far", "bustype", "PQ, SWING"),
        ("90 kVA;", "90 kVA; constant_power_A_real 5;", "load far", "constant_power_A_real", "not both"),
        ("90 kVA;", "90 kVA; base_power_A 5;", "load far", "constant_power_A", "not both"),
        ("90 kVA", "1e999 kVA", "case.glm:6: load far", "constant_power_A", "write a number"),
        ("name far;", "name head;", "case.glm:6: load head", "name", "case.glm:3"),
        ("name l;", "name z;", "case.glm:5: overhead_line z", "name", "case.glm:4"),
        ("module powerflow;", "#ifdef never", "case.glm:2", "macro", "#endif"),
        ("module powerflow;", '#include "case.glm"', "case.glm:2", "include", "circle"),
    ],
)
def test_what_is_wrong_in_a_glm_file_is_named(tmp_path, old, new, where, field, remedy):
    assert old in GLM
    found = problems(read_gridlabd, glm(tmp_path, GLM.replace(old, new)))
    assert any(where in p.where and field in p.field and remedy in p.remedy for p in found), found


REGULATOR = """
object regulator_configuration { name rc; connect_type 1; raise_taps 16; lower_taps 8; Type A; tap_pos_A 2; }
object regulator { name r; phases ABC; from far; to held; configuration rc; }
object load { name held; phases ABCN; nominal_voltage 7200; }
"""
SWITCH = """
object switch { name s; phases ABC; from far; to held; status CLOSED; }
object load { name held; phases ABCN; nominal_voltage 7200; }
"""
CAPACITOR = """
object capacitor { name c; parent far; phases ABCN; capacitor_A 5000; switchA CLOSED; control MANUAL; }
"""
TRANSFORMER = """
object transformer_configuration { name tc; connect_type WYE_WYE; power_rating 500; primary_voltage 12470;
    secondary_voltage 480; resistance 0.01; reactance 0.05; powerA_rating 200; powerB_rating 300; }
object transformer { name t; phases ABC; from far; to held; configuration tc; }
object load { name held; phases ABCN; nominal_voltage 277; }
"""


@pytest.mark.parametrize(
    ("text", "old", "new", "field", "remedy"),
    [
        (REGULATOR, "tap_pos_A 2", "tap_pos_A 50", "tap_pos_A", "-8 (lower_taps) to 16"),
        (REGULATOR, "tap_pos_A 2", "tap_pos_A -9", "tap_pos_A", "-8 (lower_taps) to 16"),
        (REGULATOR, "tap_pos_A 2", "tap_pos_A 2.5", "tap_pos_A", "whole number"),
        (REGULATOR, "name r;", "name r; tap_B 17;", "tap_B", "whole number"),
        (REGULATOR, "name r;", "name r; regulator_resistance 1;", "regulator_resistance", "in series"),
        (REGULATOR, "tap_pos_A 2", "Control OUTPUT_VOLTAGE", "tap_pos_A", "where it stands"),
        (REGULATOR, "name r;", "name r; status OPEN;", "status", "open switch in series"),
        (SWITCH, "CLOSED;", "CLOSED; switch_impedance 1+1j;", "switch_impedance", "in series"),
        (SWITCH, "CLOSED;", "CLOSED; phase_B_state OPEN;", "phase_B_state", "INDIVIDUAL"),
        (CAPACITOR, "CLOSED; control MANUAL", "OPEN; control_level BANK", "control_level", "pt_phase"),
        (CAPACITOR, "switchA CLOSED; control MANUAL", "control VOLT", "switchA", "OPEN or CLOSED"),
        (CAPACITOR, "MANUAL;", "MANUAL; power_A 5000;", "power_A", "of a load"),
        (TRANSFORMER, "name t;", "name t; status OPEN;", "status", "open switch in series"),
        (TRANSFORMER, "powerB_rating 300", "powerB_rating 200", "powerA_rating", "add up"),
        (TRANSFORMER, "reactance 0.05;", "reactance 0.05; no_load_loss 0.01;", "no_load_loss", "shunt"),
    ],
)
def test_what_is_wrong_at_a_device_is_named(tmp_path, text, old, new, field, remedy):
    assert old in text
    read_gridlabd(glm(tmp_path, GLM + text))
    found = problems(read_gridlabd, glm(tmp_path, GLM + text.replace(old, new)))
    assert any(field == p.field and remedy in p.remedy for p in found), found


def test_phases_of_an_individual_switch_have_their_own_states(tmp_path):
    text = GLM + SWITCH.replace("CLOSED;", "CLOSED; operating_mode INDIVIDUAL; phase_B_state OPEN;")
    network = read_gridlabd(glm(tmp_path, text))
    assert (network.bus_node[network.bus.index("held")] >= 0).tolist() == [True, False, True]


def test_constant_power_is_what_the_other_fractions_leave(tmp_path):
    text = "base_power_A 100 kW; current_fraction_A 0.9; impedance_fraction_A 0.6; power_pf_A 0.8; current_pf_A -0.8;"
    loads = read_gridlabd(glm(tmp_path, GLM.replace("constant_power_A 90 kVA;", text))).loads
    s_kva = [float(1e3 / 3) * part.sum() for part in (loads.s_power, loads.s_current, loads.s_impedance)]
    # -50, 90 and 60 kVA; a power factor below zero leads
    np.testing.assert_allclose(s_kva, [-40.0 - 30.0j, 72.0 - 54.0j, 60.0], rtol=1e-12)
    for fraction in ("", "power_fraction_A 0.5;"):
        given = GLM.replace("constant_power_A 90 kVA;", f"base_power_A 90000; {fraction}")
        np.testing.assert_allclose(read_gridlabd(glm(tmp_path, given)).loads.s_power, 0.27, rtol=1e-12)


def test_includes_are_found_from_the_folder_of_the_model_and_taken_in_once(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "outer.glm").write_text('#include "parts/inner.glm"\n')
    (tmp_path / "parts" / "inner.glm").write_text("object meter { name m; }\n")
    path = glm(tmp_path, '#include "parts/outer.glm"\n#include "parts/inner.glm"\n')
    assert [item.name for item in parse_glm(path).objects] == ["m"]


def test_circles_of_includes_are_named(tmp_path):
    (tmp_path / "other.glm").write_text('\n#include "case.glm"\n')
    found = problems(parse_glm, glm(tmp_path, '#include "other.glm"\n'))
    assert [(p.where, p.value) for p in found] == [
        ("other.glm:2", "case.glm includes other.glm includes case.glm")
    ]


def test_all_problems_of_a_glm_file_come_together(tmp_path):
    text = GLM.replace("configuration z;", "configuration zz;").replace("length 1000 ft", "length much")
    found = problems(read_gridlabd, glm(tmp_path, text))
    assert {p.field for p in found} == {"configuration", "length"}


def test_a_load_behind_an_open_switch_is_named(tmp_path):
    text = GLM + (
        "object switch { name s; phases ABCN; from far; to dark; status OPEN; }\n"
        "object load { name dark; phases ABCN; nominal_voltage 7200; constant_power_B 5000; }\n"
    )
    found = problems(read_gridlabd, glm(tmp_path, text))
    assert [(p.where, p.value) for p in found] == [("case.glm: dark", "dark, phase b")]
    network = read_gridlabd(glm(tmp_path, text.replace("constant_power_B 5000", "constant_power_B 0")))
    assert (network.bus_node[network.bus.index("dark")] == -1).all()


def test_regulators_around_a_loop_must_agree(tmp_path):
    text = GLM + (
        "object switch { name s; phases ABCN; from far; to near; status CLOSED; }\n"
        "object node { name near; phases ABCN; nominal_voltage 7200; }\n"
        "object regulator { name r; phases ABC; from far; to near; configuration object regulator_configuration {\n"
        "  name rc; connect_type 1; raise_taps 16; lower_taps 16; regulation 0.1; Type A; tap_pos_A 2; }; }\n"
    )
    assert any(p.field == "ratio around the loop" for p in problems(read_gridlabd, glm(tmp_path, text)))
    network = read_gridlabd(glm(tmp_path, text.replace("tap_pos_A 2", "tap_pos_A 0")))
    joined = network.bus_node[[network.bus.index("far"), network.bus.index("near")]]
    assert (joined[0] == joined[1]).all()


def test_limits_and_ratios_follow_the_regulator(tmp_path):
    text = GLM.replace("from head; to far", "from mid; to far") + (
        "object node { name mid; phases ABCN; nominal_voltage 7200; }\n"
        "object regulator { name r; phases ABC; from head; to mid; configuration object regulator_configuration {\n"
        "  name rc; connect_type 1; raise_taps 16; lower_taps 16; regulation 0.1; Type A; tap_pos_B 8; }; }\n"
    )
    network = read_gridlabd(glm(tmp_path, text), v_min_pu=0.94, v_max_pu=1.06)
    mid = network.bus.index("mid")
    # regulator bus and swing bus are one node: v_mid = 1.05 v_head on phase b alone
    np.testing.assert_allclose(network.bus_ratio[mid], [1.0, 1.05, 1.0], rtol=1e-14)
    np.testing.assert_allclose(network.v_max_pu[:3], [1.06, 1.06 / 1.05, 1.06], rtol=1e-14)
    np.testing.assert_allclose(network.v_min_pu[:3], [0.94, 0.94, 0.94], rtol=1e-14)
    np.testing.assert_allclose(network.branches.from_ratio[0], [1.0, 1.05, 1.0], rtol=1e-14)


def test_power_base_changes_nothing_physical(tmp_path):
    one, ten = (read_opendss(dss(tmp_path, DSS), s_base_kva=s) for s in (1000.0, 10000.0))
    np.testing.assert_allclose(one.y.toarray(), 10.0 * ten.y.toarray(), rtol=1e-12)
    np.testing.assert_allclose(
        one.loads.s_power * one.s_phase_kva, ten.loads.s_power * ten.s_phase_kva, rtol=1e-12
    )
    np.testing.assert_allclose(one.loads.s_power.sum() * one.s_phase_kva, 300.0 + 100.0j, rtol=1e-12)
