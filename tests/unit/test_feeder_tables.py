"""The feeder tables: what the shipped ones hold, and that wrong ones are named whole."""

import shutil

import numpy as np
import pytest

from voltier.grid.errors import InputError
from voltier.grid.feeder import DATA, FEET_PER_MILE, read_feeder
from voltier.grid.topology import closed_edges, merged_buses, reached


@pytest.fixture
def folder(tmp_path):
    copy = tmp_path / "mine"
    shutil.copytree(DATA / "ieee123", copy)
    return copy


def edit(folder, table, old, new):
    path = folder / f"{table}.csv"
    text = path.read_text()
    assert text.count(old) == 1, f"{old!r} must stand once in {table}"
    path.write_text(text.replace(old, new))


def problems(folder):
    with pytest.raises(InputError) as caught:
        read_feeder(folder)
    return caught.value.problems


def test_the_shipped_feeder_has_the_published_totals():
    feeder = read_feeder("ieee123")
    assert len(feeder.bus) == 133
    assert len(feeder.load_buses) == 85
    assert (feeder.spot_loads.p_kw.sum(), feeder.spot_loads.q_kvar.sum()) == (3490.0, 1920.0)
    assert feeder.capacitors.q_kvar.sum() == 750.0
    assert len(feeder.lines.name) == 118
    assert feeder.bus[feeder.source_bus] == "150"
    assert feeder.source_v_pu == 1.0
    assert (np.diff(feeder.load_buses) > 0).all()


def test_a_line_has_its_configuration_times_its_length():
    lines = read_feeder("ieee123").lines
    row = lines.name.index("line_26_27")
    miles = 275 / FEET_PER_MILE
    assert lines.has_phase[row].tolist() == [True, False, True]
    assert lines.r_ohm[row, 0, 0] == pytest.approx(0.4576 * miles, rel=1e-15)
    assert lines.x_ohm[row, 2, 0] == pytest.approx(0.3849 * miles, rel=1e-15)
    assert lines.b_us[row, 0, 2] == pytest.approx(-1.0549 * miles, rel=1e-15)
    assert not lines.r_ohm[row, 1].any()
    assert lines.i_max_a[row] == 530.0


def test_only_the_stubs_behind_open_switches_are_dead():
    feeder = read_feeder("ieee123")
    fed = reached(feeder)
    assert {feeder.bus[k] for k in np.flatnonzero(~fed.any(axis=1))} == {"251", "350", "451"}
    assert (fed == (feeder.has_phase & fed.any(axis=1, keepdims=True))).all()
    floating = fed & ~reached(feeder, through_delta=False)
    assert [feeder.bus[k] for k in np.flatnonzero(floating.any(axis=1))] == ["610"]


def test_closed_switches_merge_and_the_tree_has_one_edge_less_than_buses():
    feeder = read_feeder("ieee123")
    first = merged_buses(feeder)
    assert first[feeder.bus.index("149")] == first[feeder.bus.index("150r")]
    assert first[feeder.bus.index("150")] != first[feeder.bus.index("150r")]
    assert len(list(closed_edges(feeder))) == 130 - 1


def test_a_folder_is_read_as_well_as_a_name(folder):
    assert read_feeder(folder).bus == read_feeder("ieee123").bus
    with pytest.raises(InputError, match=r"ieee123.*folder"):
        read_feeder("ieee999")


CASES = [
    ("lines", "line_1_2,1,2,b,10,175", "line_1_2,1,zzz,b,10,175", "to_bus", "zzz", "bus of buses.csv"),
    ("lines", "line_1_2,1,2,b,10,175", "line_1_2,1,2,b,10,-175", "length_ft", "-175", "above zero"),
    ("lines", "line_1_2,1,2,b,10,175", "line_1_2,1,2,b,10,far", "length_ft", "far", "a number"),
    ("lines", "line_1_2,1,2,b,10,175", "line_1_2,1,2,b,77,175", "config", "77", "line_configs.csv"),
    ("lines", "line_1_2,1,2,b,10,175", "line_1_2,1,2,a,9,175", "to_bus", "2", "phases b"),
    ("lines", "line_1_2,1,2,b,10,175", "line_1_2,1,2,b,9,175", "phases", "b", "phases a"),
    ("lines", "line_1_3,1,3,c,11,250", "line_1_2,1,3,c,11,250", "line", "line_1_2", "name of its own"),
    ("buses", "\n2,b,4.16", "\n1,b,4.16", "bus", "1", "name of its own"),
    ("buses", "\n2,b,4.16", "\n2,bx,4.16", "phases", "bx", "a, b, c"),
    ("buses", "\n2,b,4.16", "\n2,b,12.47", "to_bus", "2", "same nominal voltage"),
    ("spot_loads", "2,wye,b,PQ,20,10\n4", "2,wye,a,PQ,20,10\n4", "phase", "a", "phases b"),
    ("spot_loads", "2,wye,b,PQ,20,10\n4", "2,wye,b,PQ,-20,10\n4", "p_kw", "-20", "from 0"),
    ("spot_loads", "2,wye,b,PQ,20,10\n4", "2,wye,b,XX,20,10\n4", "model", "XX", "PQ, I, Z"),
    ("spot_loads", "35,delta,ab", "35,delta,a", "phase", "a", "between two"),
    ("spot_loads", "2,wye,b,PQ,20,10\n4", "251,wye,b,PQ,20,10\n4", "bus", "251", "not joined"),
    ("switches", "sw8,54,94,a,open", "sw8,54,94,a,closed", "to_bus", "94", "loop"),
    ("switches", "sw2,13,152,abc,closed", "sw2,13,152,abc,shut", "normal_state", "shut", "open, closed"),
    ("switches", "sw2,13,152,abc,closed", "sw2,13,152,ab,closed", "phases", "ab", "carries every phase"),
    ("regulators", "50,0.4,0.4,-1,0.00625,16\nreg3,25,25r,a", "50,0.4,0.4,-17,0.00625,16\nreg3,25,25r,a",
     "published_tap", -17, "±16"),
    ("regulators", "reg2,9,9r,a", "reg2,9r,9,a", "from_bus", "9r", "towards the source"),
    ("transformers", "61s,610,150", "61s,610,-150", "s_kva", "-150", "above zero"),
    ("transformers", "delta,0.48,delta", "delta,0.48,wye_grounded", "conn_low", "wye_grounded", "alike"),
    ("capacitors", "88,a,50", "88,b,50", "phase", "b", "phases a"),
    ("source", "150,4.16,1,", "2,4.16,1,", "bus", "2", "phases abc"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "old", "new", "field", "value", "remedy"), CASES)
def test_each_fault_is_named_with_file_row_value_and_remedy(folder, table, old, new, field, value, remedy):
    edit(folder, table, old, new)
    found = [p for p in problems(folder) if p.field == field and p.value == value]
    assert any(remedy in p.remedy and p.where.split(":")[0].endswith(".csv") for p in found), problems(folder)
    assert all(p.where.split(":")[1].isdigit() for p in found)


def test_the_row_number_is_the_line_of_the_file(folder):
    edit(folder, "lines", "line_1_2,1,2,b,10,175", "line_1_2,1,2,b,10,-175")
    (problem,) = problems(folder)
    number = int(problem.where.split(":")[1])
    assert (folder / "lines.csv").read_text().splitlines()[number - 1].endswith("-175")


def test_all_problems_come_together(folder):
    edit(folder, "lines", "line_1_3,1,3,c,11,250", "line_1_3,1,3,c,11,-250")
    edit(folder, "capacitors", "88,a,50", "88,a,many")
    edit(folder, "switches", "sw8,54,94,a,open", "sw8,54,94,a,closed")
    edit(folder, "switches", "sw5,97,197,abc,closed", "sw5,97,197,abc,open")
    found = problems(folder)
    assert {p.field for p in found} == {"length_ft", "q_kvar", "to_bus", "bus"}
    # opening 97-197 leaves the loads at 102, 103, 104, 106, 107, 109, 111, 112, 113, 114 without supply
    assert sum(p.where.startswith("spot_loads.csv") for p in found) == 10


def test_missing_file_and_missing_column_are_named(folder):
    (folder / "switches.csv").unlink()
    edit(folder, "lines", "length_ft\n", "length_m\n")
    found = {(p.where, p.field) for p in problems(folder)}
    assert ("switches.csv", "file") in found
    assert ("lines.csv", "length_ft") in found


def test_a_short_row_is_named(folder):
    edit(folder, "lines", "line_1_2,1,2,b,10,175", "line_1_2,1,2,b,10")
    assert any(p.field == "row" and "6 cells" in p.remedy for p in problems(folder))


def test_every_shipped_table_says_where_it_comes_from():
    for path in sorted((DATA / "ieee123").glob("*.csv")):
        head = " ".join(line for line in path.read_text().splitlines() if line.startswith("#"))
        assert "Source: IEEE PES" in head, path.name
        assert "re-tabulated" in head, path.name
        assert "Licence" in head, path.name
