"""Is this installation fit to run? Versions, solvers, HELICS on the loopback, a few simulated minutes."""

from __future__ import annotations

import importlib.util
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

_PACKAGES = (
    "helics",
    "opendssdirect.py",
    "clarabel",
    "piqp",
    "numba",
    "mesa",
    "simpy",
    "pyarrow",
    "pandapower",
)
_TRIAL_HOURS = 0.25


def examine() -> bool:
    """Make every check, print one line for each, and return whether all passed."""
    checks: dict[str, Callable[[], str]] = {
        "Python": _python,
        "packages": _packages,
        "cone solver": _cone_solver,
        "quadratic solver": _quadratic_solver,
        "HELICS on the loopback": _loopback,
        "GridLAB-D": _gridlabd,
        "a few simulated minutes": _trial,
    }
    found = [_check(name, check) for name, check in checks.items()]
    return all(found)


def _check(name: str, check: Callable[[], str]) -> bool:
    started = time.monotonic()
    try:
        found = check()
    # Whatever is wrong with an installation is a finding, not a crash of the examination.
    except Exception as error:
        print(f"FAIL  {name}: {type(error).__name__}: {error}", file=sys.stderr)
        return False
    print(f"ok    {name}: {found} ({time.monotonic() - started:.1f} s)", flush=True)
    return True


def _python() -> str:
    return f"{platform.python_version()} on {platform.system()} {platform.machine()}"


def _packages() -> str:
    return ", ".join(f"{name} {version(name)}" for name in _PACKAGES)


def _cone_solver() -> str:
    """Minimise x²/2 over x ≥ 1."""
    import clarabel
    from scipy.sparse import csc_matrix

    one = csc_matrix(np.ones((1, 1)))
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    cones = [clarabel.NonnegativeConeT(1)]
    solution = clarabel.DefaultSolver(one, np.zeros(1), -one, -np.ones(1), cones, settings).solve()
    return f"Clarabel {_expect(solution.x[0], 1.0)}"


def _quadratic_solver() -> str:
    """Minimise x²/2 with x = 1."""
    import piqp
    from scipy.sparse import csc_matrix

    one = csc_matrix(np.ones((1, 1)))
    solver = piqp.SparseSolver()
    solver.setup(one, np.zeros(1), one, np.ones(1))
    solver.solve()
    return f"PIQP {_expect(solver.result.x[0], 1.0)}"


def _expect(x: float, expected: float) -> str:
    # Solvers stop at 1e-8 or so; a broken one is off by far more.
    if abs(x - expected) > 1e-6:
        raise RuntimeError(f"found {x}, expected {expected}")
    return "solves"


def _loopback() -> str:
    from voltier.federates.helics import Broker
    from voltier.federates.wiring import LOOPBACK

    broker = Broker("zmq", 1, "doctor", interface=LOOPBACK)
    broker.close()
    return f"a broker starts at {broker.address}"


def _gridlabd() -> str:
    """Solve the published load of a small feeder, and compare with OpenDSS."""
    if importlib.util.find_spec("gridlabd") is None:
        return 'not installed; feeder.engine: gridlabd needs pip install "voltier[gridlabd]"'
    from voltier.federates.gridlabd_engine import GridlabdFlow
    from voltier.grid.feeder import read_feeder
    from voltier.grid.flow.opendss import OpenDssFlow

    feeder = read_feeder("ieee13")
    power = np.where(feeder.has_phase, -50.0, 0.0)
    flow = GridlabdFlow(feeder)
    theirs = flow.solve(power, power / 3.0, feeder.regulators.published_tap).v_pu
    flow.close()
    ours = OpenDssFlow(feeder).solve(power, power / 3.0, feeder.regulators.published_tap).v_pu
    apart_pu = float(np.nanmax(np.abs(theirs - ours)))
    # agreement is some 1e-7; a wrong reading of its values is off by far more
    if not apart_pu < 1e-4:
        raise RuntimeError(f"its voltages are {apart_pu:g} p.u. from those of OpenDSS")
    return f"{version('gridlabd')} solves in a process of its own, {apart_pu:.0e} p.u. from OpenDSS"


def _trial() -> str:
    """Run the day's scenario for a few minutes in this process, which also compiles the kernels."""
    from voltier.federates.session import run_scenario
    from voltier.scenarios.schema import load_scenario

    scenario = load_scenario("ieee123-day", [f"hours={_TRIAL_HOURS}"])
    with tempfile.TemporaryDirectory(prefix=".voltier-doctor-", dir=Path.cwd()) as folder:
        run_scenario(scenario, Path(folder) / "run", transport="none")
    return "run, recorded and reported"
