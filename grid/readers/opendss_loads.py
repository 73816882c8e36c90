"""What OpenDSS loads, generators, PV systems and storage draw, phase by phase."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from voltier.grid.errors import Problem
from voltier.grid.readers.circuit import Draw
from voltier.grid.readers.opendss_parts import Part

Shares = NDArray[np.complex128]
"""(3,) constant power, constant current, constant impedance [VA at nominal voltage]."""
VARIABLE = 0
EXPONENTS = (0.0, 1.0, 2.0)
SAME = 1e-4  # relative; OpenDSS solves to 1e-9, so anything larger is another law than the one read


def draws_of(context: Any, file: str, part: Part, problems: list[Problem]) -> list[Draw]:
    """Give the draws of an element, by phase or pair of phases; append to problems where it has no law here."""
    if part.kind == "load":
        return _load(context, file, part, problems)
    model = _ask(context, part, "model")
    if model != "1":
        remedy = "write model=1 (constant power); other models of generators are not supported"
        problems.append(Problem(f"{file}: {part.name}", "model", model, remedy))
        return []
    delta = _ask(context, part, "conn").lower().startswith(("d", "ll"))
    volts = 1000.0 * float(_ask(context, part, "kv"))
    return _split(part, delta, volts, np.array([part.s_va.sum(), 0.0, 0.0]))


def _ask(context: Any, part: Part, quantity: str) -> str:
    context.Text.Command(f"? {part.name}.{quantity}")
    return str(context.Text.Result()).strip()


def _load(context: Any, file: str, part: Part, problems: list[Problem]) -> list[Draw]:
    loads = context.Loads
    loads.Name(part.name.partition(".")[2])
    shares = _shares(context, file, part, problems)
    if shares is None:
        return []
    draws = _split(part, bool(loads.IsDelta()), 1000.0 * float(loads.kV()), shares)
    u = np.array([abs(_across(part, draw)) / draw.v_nominal_v for draw in draws])
    expected = sum(
        draw.s_power_va + draw.s_current_va * k + draw.s_impedance_va * k**2
        for draw, k in zip(draws, u, strict=True)
    )
    where = f"{file}: {part.name}"
    if abs(expected - part.s_va.sum()) <= SAME * abs(shares).sum() + SAME:
        return draws
    if ((u > loads.Vminpu()) & (u < loads.Vmaxpu())).all():
        remedy = "OpenDSS draws another power at this voltage; remove neutral impedances, growth or curves"
        problems.append(Problem(where, "power [kVA]", complex(np.round(expected / 1000.0, 6)), remedy))
    else:
        remedy = (
            f"OpenDSS draws another power outside vminpu={loads.Vminpu():g} and vmaxpu={loads.Vmaxpu():g}; "
            "correct kv, bus or feed, let controls act (settle_controls), or set the two around this voltage"
        )
        problems.append(Problem(where, "voltage over rated voltage", u.round(4).tolist(), remedy))
    return draws


def _across(part: Part, draw: Draw) -> complex:
    volts = dict(zip(part.ends, part.v_v.tolist(), strict=True))
    return complex(volts[draw.plus] - (volts[draw.minus] if draw.minus else 0.0))


def _shares(context: Any, file: str, part: Part, problems: list[Problem]) -> Shares | None:
    """Write the load's model as shares of constant power, current and impedance."""
    loads = context.Loads
    variable = _ask(context, part, "status").lower().startswith("v")
    scale = 1000.0 * (float(context.Solution.LoadMult()) if variable else 1.0)
    p_w, q_var, model = scale * float(loads.kW()), scale * float(loads.kvar()), int(loads.Model())
    exponents = {1: (0, 0), 2: (2, 2), 3: (0, 2), 5: (1, 1), 6: (0, 0), 7: (0, 2)}
    shares = np.zeros(3, dtype=np.complex128)
    if model == 8:
        zip_p, zip_q = np.array(loads.ZipV()[:3])[::-1], np.array(loads.ZipV()[3:6])[::-1]
        return np.asarray(p_w * zip_p + 1j * q_var * zip_q)
    if model == 4:
        wanted = (float(loads.CVRwatts()), float(loads.CVRvars()))
        if wanted[0] not in EXPONENTS or wanted[1] not in EXPONENTS:
            remedy = "write cvrwatts and cvrvars of 0, 1 or 2, or model=8 with ZIP coefficients"
            problems.append(Problem(f"{file}: {part.name}", "cvrwatts, cvrvars", wanted, remedy))
            return None
        exponents[4] = (int(wanted[0]), int(wanted[1]))
    if model not in exponents:
        problems.append(Problem(f"{file}: {part.name}", "model", model, "write a model from 1 to 8"))
        return None
    shares[exponents[model][0]] += p_w
    shares[exponents[model][1]] += 1j * q_var
    return shares


def _split(part: Part, delta: bool, rated_v: float, shares: Shares) -> list[Draw]:
    """Share equally among the phases; a wye element's last conductor is its neutral."""
    ends, n = part.ends, part.phases
    if delta:
        pairs = [(ends[k], ends[(k + 1) % len(ends)]) for k in range(n)]
    else:
        pairs = [(end, ends[n] if len(ends) > n else None) for end in ends[:n]]
    # OpenDSS rates wye elements of two and three phases by their line voltage
    v_nominal_v = rated_v / np.sqrt(3.0) if n > 1 and not delta else rated_v
    power, current, impedance = (shares / n).tolist()
    draws = []
    for near, far in pairs:
        plus, minus = (near, far) if near is not None else (far, None)
        if plus is not None and plus != minus:
            draws.append(Draw(part.name, plus, minus, float(v_nominal_v), power, current, impedance))
    return draws
