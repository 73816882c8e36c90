"""OpenDSS files (.dss): compiled by OpenDSS itself, through OpenDSSDirect, then taken over element by element."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from opendssdirect import dss
from opendssdirect._utils import DSSException

from voltier.grid.errors import InputError, Problem
from voltier.grid.readers.assembly import assemble
from voltier.grid.readers.circuit import Circuit
from voltier.grid.readers.opendss_loads import draws_of
from voltier.grid.readers.opendss_parts import DRAWING, LINEAR, element_of, read_parts, source_of
from voltier.grid.threephase import ThreePhaseNetwork

SOURCE_BUS = "stiff_source"
TOLERANCE_PU, MAX_ITERATIONS = 1e-9, 100


def read_opendss(
    path: Path,
    *,
    settle_controls: bool = False,
    s_base_kva: float = 1000.0,
    v_min_pu: float = 0.95,
    v_max_pu: float = 1.05,
) -> ThreePhaseNetwork:
    """Read the network of an OpenDSS file, everything as it stands after the file has been run.

    settle_controls : let the file's own regulator and capacitor controls act once more before reading; otherwise taps
    and capacitor steps stay where the file, with the solutions it may contain, leaves them.
    s_base_kva : three-phase base ; v_min_pu, v_max_pu : limits of every bus

    Lines, transformers, reactors and capacitors enter with OpenDSS's own admittances. The source is stiff behind its
    short-circuit impedance: the added bus "stiff_source", nodes 0 to 2, with the impedance as a branch. Loads keep
    their model (1 to 8; CVR exponents 0, 1 or 2) at any voltage; a load that stands outside vminpu and vmaxpu, where
    OpenDSS turns it to an impedance that draws another power, is refused. Generators, PV systems and storage draw the
    constant power that OpenDSS solved for them. Nodes 1, 2, 3 of a bus are phases a, b, c, also on split-phase
    secondaries. A line rated 400 A, the default of OpenDSS, counts as not rated.

    Raises InputError where OpenDSS rejects the file or does not solve it, and, with all problems, where an element has
    no place here: several sources, more than two buses at an element, nodes above 3 (neutrals), other classes.
    """
    context = dss.NewContext()
    context.Basic.AllowChangeDir(False)
    context.Basic.AllowEditor(False)
    context.Basic.AllowForms(False)
    if not Path(path).is_file():
        raise InputError([Problem(str(path), "file", "missing", "name an OpenDSS file")])
    try:
        circuit = _circuit(context, Path(path).resolve(), settle_controls)
    except DSSException as error:
        remedy = "correct the file; the value is OpenDSS's own message"
        raise InputError([Problem(Path(path).name, "OpenDSS", str(error), remedy)]) from error
    finally:
        context.Basic.ClearAll()
    return assemble(circuit, s_base_kva=s_base_kva, v_min_pu=v_min_pu, v_max_pu=v_max_pu)


def _circuit(context: Any, path: Path, settle_controls: bool) -> Circuit:
    """Compile, solve and take the circuit over; raises InputError."""
    _solve(context, path, settle_controls)
    bases = _bases(context)
    problems: list[Problem] = []
    parts = read_parts(context, path.name, problems)
    sources = [part for part in parts if part.kind == "vsource"]
    if len(sources) != 1:
        names = ", ".join(part.name for part in sources) or "none"
        problems.append(Problem(path.name, "vsource", names, "keep exactly one source enabled"))
    if SOURCE_BUS in bases:
        remedy = "rename the bus; the name stands for the stiff source behind its impedance"
        problems.append(Problem(path.name, "bus", SOURCE_BUS, remedy))
    elements = [element_of(path.name, part, problems) for part in parts if part.kind in LINEAR]
    draws = [
        draw
        for part in parts
        if part.kind in DRAWING
        for draw in draws_of(context, path.name, part, problems)
    ]
    source = source_of(context, path.name, sources[0], SOURCE_BUS, problems) if sources else None
    if problems or source is None:
        raise InputError(problems)
    source_v, source_angle_rad, impedance = source
    return Circuit(
        file=path.name,
        v_base_v={SOURCE_BUS: bases[impedance.to_terminals[0][0]], **bases},
        source_bus=SOURCE_BUS,
        source_v=source_v,
        source_angle_rad=source_angle_rad,
        elements=[impedance, *(element for element in elements if element is not None)],
        links=[],
        draws=draws,
    )


def _solve(context: Any, path: Path, settle_controls: bool) -> None:
    run = context.Text.Command
    run(f'compile "{path}"')
    if context.Basic.NumCircuits() == 0:
        raise InputError(
            [Problem(path.name, "circuit", "none", "define one by 'new circuit.name' and its lines")]
        )
    run(
        f"set mode=snap tolerance={TOLERANCE_PU} maxiterations={MAX_ITERATIONS} maxcontroliter={MAX_ITERATIONS}"
    )
    run(f"set controlmode={'static' if settle_controls else 'off'}")
    run("solve")
    if not context.Solution.Converged():
        remedy = "change the file until OpenDSS solves it, or let its controls act (settle_controls)"
        raise InputError([Problem(path.name, "OpenDSS solution", "not converged", remedy)])


def _bases(context: Any) -> dict[str, float]:
    """Give the base voltage of every bus, phase to neutral [V].

    Where the file has not named base voltages, OpenDSS chooses for every bus among the rated ones.
    """
    bases = _known_bases(context)
    if all(bases.values()):
        return bases
    context.Vsources.First()
    rated = {float(context.Vsources.BasekV())}
    transformers = context.Transformers
    found = transformers.First()
    while found:
        phases = context.CktElement.NumPhases()
        for winding in range(1, transformers.NumWindings() + 1):
            transformers.Wdg(winding)
            line_to_line = phases > 1 or transformers.IsDelta()
            rated.add(float(transformers.kV() * (1.0 if line_to_line else np.sqrt(3.0))))
        found = transformers.Next()
    context.Text.Command(f"set voltagebases=[{', '.join(repr(kv) for kv in sorted(rated, reverse=True))}]")
    context.Text.Command("calcvoltagebases")
    context.Text.Command("solve")
    return _known_bases(context)


def _known_bases(context: Any) -> dict[str, float]:
    bases = {}
    for name in context.Circuit.AllBusNames():
        context.Circuit.SetActiveBus(name)
        bases[name.lower()] = 1000.0 * float(context.Bus.kVBase())
    return bases
