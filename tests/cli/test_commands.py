"""The command line as scripts see it: exit codes, messages, files."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from voltier.federates.cli import _guarded
from voltier.grid.errors import ClearingAborted, FederationError, InputError, NotConvergedError, Problem
from voltier.scenarios.schema import scenario_names

COMMAND = [sys.executable, "-P", "-m", "voltier.federates.cli"]


def voltier(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120)


def test_help_starts_without_the_heavy_libraries() -> None:
    code = "import sys, voltier.federates.cli; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    heavy = {
        "numba",
        "scipy",
        "pandas",
        "pyarrow",
        "helics",
        "cvxpy",
        "clarabel",
        "mesa",
        "pydantic",
        "plotly",
    }
    assert heavy & set(modules.stdout.split()) == set()


def test_help_names_every_public_command(tmp_path: Path) -> None:
    done = voltier("--help", cwd=tmp_path)
    assert done.returncode == 0
    for name in (
        "run",
        "list",
        "validate",
        "schema",
        "federate",
        "report",
        "compare",
        "study",
        "export",
        "check",
        "doctor",
    ):
        assert f"\n  {name} " in done.stdout


def test_list_names_the_whole_library(tmp_path: Path) -> None:
    done = voltier("list", cwd=tmp_path)
    lines = done.stdout.splitlines()
    for name, title in scenario_names().items():
        assert any(line.split() == [name, *title.split()] for line in lines)


def test_schema_is_json(tmp_path: Path) -> None:
    schema = json.loads(voltier("schema", cwd=tmp_path).stdout)
    assert schema["title"] == "voltier scenario"
    assert "federation" in schema["properties"]


def test_validate_says_that_a_library_scenario_is_sound(tmp_path: Path) -> None:
    done = voltier("validate", "ieee123-day", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "ieee123-day: no problems found\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "no-such-day"], ["no-such-day", "ieee123-day"]),
        (
            ["run", "ieee123-day", "--set", "primary.period_s=61"],
            ["primary.period_s", "61", "multiple of 60"],
        ),
        (["run", "ieee123-day", "--set", "primery.period_s=60"], ["primery"]),
        (["run", "ieee123-day", "--hours", "-1"], ["hours", "-1"]),
        (
            ["run", "ieee123-day", "--set", "primary.formulation=unbalanced"],
            ["primary.formulation", "unbalanced", "current_injection"],
        ),
        (
            ["validate", "ieee123-day", "--set", "primary.weights.v_target_pu=0.97"],
            ["primary.weights.v_target_pu", "0.97", "set primary.formulation to current_injection"],
        ),
        (
            ["run", "ieee123-day", "--transport", "pigeon"],
            ["--transport", "pigeon", "zmq, tcp, inproc, none"],
        ),
        (["run", "ieee123-day", "--out", "full"], ["--out", "full", "not empty"]),
        (["run", "ieee123-day", "--no-such-option"], ["--no-such-option"]),
        (["run"], ["SCENARIO"]),
        (["validate", "ieee123-attack-2b", "--set", "generators.0.bus=9999"], ["attack.buses.0", "9999"]),
        (["study", "everything"], ["everything", "No such command"]),
        (["study", "relaxation", "--feeder", "ieee14"], ["--feeder", "ieee14", "ieee13, ieee34, ieee123"]),
        (["study", "relaxation", "--load", "-1"], ["--load = -1.0"]),
        (["study", "relaxation", "--hours", "1"], ["--hours", "No such option"]),
        (
            ["study", "distributed-clearing", "--feeder", "ieee14"],
            ["--feeder", "ieee14", "ieee13, ieee34, ieee123"],
        ),
        (
            ["study", "distributed-clearing", "--method", "gossip"],
            ["--method", "gossip", "pac, nst-pac, admm"],
        ),
        (
            ["study", "distributed-clearing", "--formulation", "dc"],
            ["--formulation", "dc", "branch_flow, current"],
        ),
        (["study", "distributed-clearing", "--copies", "5000"], ["--copies", "5000", "0 for none"]),
        (["study", "attack", "--feeder", "ieee13"], ["--feeder", "No such option"]),
        (["study", "designs", "--sensitivity-hours", "1"], ["--sensitivity-hours", "No such option"]),
        (
            ["study", "voltage-regulation", "--sensitivity-hours", "-1"],
            ["--sensitivity-hours", "-1", "0 for no sensitivity"],
        ),
        (
            ["study", "voltage-regulation", "--set", "primary.formulation=branch_flow"],
            ["primary.formulation", "branch_flow", "leave it out"],
        ),
        (["report", "."], ["no run directory"]),
        (["federate", "pmo"], ["--scenario"]),
        (
            ["federate", "pmo", "--scenario", "x.yaml", "--builder", "no.such:thing"],
            ["--builder", "no.such:thing"],
        ),
        (["export", "matlab", "ieee123-day", "out"], ["matlab", "No such command"]),
        (["export", "gridlabd", "ieee123-day", "full"], ["full", "empty or not there yet"]),
        (["export", "gridlabd", "ieee123-day", "out", "--run", "full"], ["no run directory"]),
        (["import", "gridlabd", "no-such.glm", "out"], ["no-such.glm", "provide"]),
        (["import", "gridlabd", "full", "out"], ["a folder", "provide"]),
        (["import", "gridlabd", sys.executable, "out"], ["no text", ".glm"]),
        (["crosscheck", ".", "--every", "x"], ["--every", "crosscheck --help"]),
        (["export", "helics", "no-such-day", "out"], ["no-such-day", "ieee123-day"]),
        (
            ["run", "ieee123-day", "--external", "smo.7"],
            ["--external", "smo.7", "smo.0, pmo, cmo.0, grid", "federation.shards", "smo:BUS"],
        ),
        (["run", "ieee123-day", "--external", "smo:9999"], ["smo:9999", "no secondary operator at this bus"]),
        (
            ["run", "ieee123-day", "--external", "smo:35", "--external", "smo.0"],
            ["one program a shard", "federation.shards"],
        ),
        (["run", "ieee123-areas", "--external", "area.0"], ["area.0", "areas confer"]),
        (["run", "ieee123-day", "--external", "smo.0", "--transport", "none"], ["--transport", "zmq or tcp"]),
        (
            ["run", "ieee123-day", "--external", "grid", "--answer-limit", "200"],
            ["--answer-limit", "federation.timeout_s"],
        ),
        (["check", "ieee123-day", "--federate", "recorder"], ["--federate", "recorder", "smo.0"]),
        (
            ["check", "ieee123-hour", "--federate", "smo.0", "--command", "no-such-program {invitation}"],
            ["--command", "there is no program no-such-program", "give its path"],
        ),
    ],
)
def test_bad_input_is_refused_with_a_remedy_before_anything_starts(
    arguments: list[str], said: list[str], tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("do not lose me", encoding="utf-8")
    done = voltier(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    for text in said:
        assert text in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "thesis.txt"]


def test_what_is_exported_to_gridlabd_is_imported_again(tmp_path: Path) -> None:
    out = voltier("export", "gridlabd", "ieee123-hour", "case", cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    assert "README.txt" in out.stdout
    back = voltier("import", "gridlabd", "snapshot.glm", "../mine", cwd=tmp_path / "case")
    assert back.returncode == 0, back.stderr
    checked = voltier("validate", "mine/scenario.yaml", cwd=tmp_path)
    assert "no problems found" in checked.stdout


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError([Problem("here", "field", 1, "write 2")]), 2),
        (FederationError("gone"), 3),
        (NotConvergedError("round and round"), 3),
        (ClearingAborted("no feasible point"), 4),
        (KeyboardInterrupt(), 130),
    ],
)
def test_every_error_has_its_exit_code(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    assert _guarded(fail) == code
    assert capsys.readouterr().err.startswith("voltier: ")


def test_a_run_prints_key_figures_and_paths_and_a_quiet_one_nothing(tmp_path: Path) -> None:
    loud = voltier(
        "run", "ieee123-hour", "--hours", "0.25", "--transport", "none", "--seed", "3", cwd=tmp_path
    )
    assert loud.returncode == 0, loud.stderr
    (run_dir,) = (tmp_path / "runs").iterdir()
    assert run_dir.name.startswith("ieee123-hour-")
    assert f"runs/{run_dir.name}/report.html" in loud.stdout
    assert "Import" in loud.stdout
    manifest = json.loads((run_dir / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["status"], manifest["seed"], manifest["transport"]) == ("done", 3, "none")
    kpis = json.loads((run_dir / "kpis.json").read_text(encoding="utf-8"))
    assert kpis["performance.wall_s"] > 0
    quiet = voltier("run", "ieee123-hour", "--hours", "0.25", "--transport", "none", "--quiet", cwd=tmp_path)
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
    compared = voltier("compare", *(str(path) for path in (tmp_path / "runs").iterdir()), cwd=tmp_path)
    assert compared.returncode == 0, compared.stderr
    assert (tmp_path / "compare.html").stat().st_size > 1000
    (run_dir / "report.html").unlink()
    assert voltier("report", str(run_dir), cwd=tmp_path).returncode == 0
    assert (run_dir / "report.html").is_file()


def test_the_study_of_voltage_regulation_runs_every_phase(tmp_path: Path) -> None:
    command = ["study", "voltage-regulation", "--base", "ieee123-hour", "--hours", "0.25", "--out", "study"]
    # A bound on the optimum takes seconds, and this is not about it.
    options = ["--sensitivity-hours", "0", "--transport", "none", "--set", "primary.relaxation_bound=false"]
    done = voltier(*command, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "study"
    kpis = json.loads((tmp_path / "study" / "kpis.json").read_text())
    assert list(kpis) == ["no_market", "primary_only", "hierarchical", "hierarchical_voltage_weight"]
    away = [
        kpis[name]["voltage.mean_abs_deviation_pu"]
        for name in ("hierarchical", "hierarchical_voltage_weight")
    ]
    assert away[1] < away[0], "what is priced falls"
    for case in kpis.values():
        assert 0.0 < case["voltage.mean_unbalance_share"] <= case["voltage.max_unbalance_share"] < 0.05
        assert case["voltage.range_b_outside_share"] <= case["voltage.range_a_outside_share"]
    assert "prices.mean_dlmp_usd_per_kwh" not in kpis["no_market"]
    page = (tmp_path / "study" / "voltage_regulation.html").read_text(encoding="utf-8")
    assert 'id="dlmp-hierarchical-figure"' in page and 'id="dlmp-primary-only-figure"' in page
    assert 'id="dlmp-hierarchical-voltage-weight-figure"' in page
    assert 'id="profiles-figure"' in page
    assert 'id="sensitivity"' not in page
    report = (tmp_path / "study" / "hierarchical" / "report.html").read_text(encoding="utf-8")
    assert 'id="price-stack-figure"' in report
    assert 'id="price-stack' not in (tmp_path / "study" / "no_market" / "report.html").read_text("utf-8")


def test_the_doctor_finds_this_installation_sound_and_leaves_nothing(tmp_path: Path) -> None:
    done = voltier("doctor", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAIL" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_run_says_what_is_left_of_it(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [*COMMAND, "run", "ieee123-day", "--transport", "none", "--out", str(out)]
    command += ["--set", "recording.commit_period_s=60"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 60.0
        while not list(out.glob("tables/.parts/grid/*.parquet")) and time.monotonic() < until:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"voltier report {out}" in said
    assert json.loads((out / "manifest.json").read_text())["status"] == "interrupted"
    assert voltier("report", str(out), cwd=tmp_path).returncode == 0


def test_ctrl_c_outside_a_run_is_said_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from voltier.federates.cli import app

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("voltier.scenarios.schema.scenario_names", interrupted)
    assert _guarded(lambda: app(["list"], standalone_mode=False)) == 130
    assert capsys.readouterr().err.strip() == "voltier: interrupted"


def test_the_study_of_distributed_clearing_runs_a_small_case(tmp_path: Path) -> None:
    command = ["study", "distributed-clearing", "--feeder", "ieee13", "--formulation", "current_injection"]
    done = voltier(*command, "--method", "nst-pac", "--copies", "0", "--out", "study", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "study"
    kpis = json.loads((tmp_path / "study" / "kpis.json").read_text())
    assert list(kpis)[:2] == ["ieee13.current_injection.nst-pac", "scaling.ieee13"]
    case = kpis["ieee13.current_injection.nst-pac"]
    # The targets of a distributed clearing.
    assert case["converged"]
    assert case["cold.cost_error"] <= 1e-3
    assert case["cold.dlmp_error"] <= 0.02
    assert (tmp_path / "study" / "histories.csv").read_text().startswith("case,round,cost_error")
    page = (tmp_path / "study" / "index.html").read_text(encoding="utf-8")
    assert 'id="accuracy-figure"' in page and "What is told to whom" in page
    helped = voltier("study", "distributed-clearing", "--help", cwd=tmp_path).stdout
    assert all(
        text in helped for text in ("--feeder", "--method", "--copies", "VOLTIER_FEEDER_FILES", "Example")
    )
