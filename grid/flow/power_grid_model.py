"""Three-phase power flow by power-grid-model (Alliander, LF Energy), an independent check."""

from __future__ import annotations

from typing import Any

import numpy as np
import power_grid_model as pgm
from power_grid_model.errors import PowerGridError

from voltier.grid.errors import InputError, NotConvergedError, Problem
from voltier.grid.feeder import Feeder
from voltier.grid.flow.folded import (
    Fold,
    branch_impedance,
    capacitor_matrix,
    fold,
    phase_volts,
    refuse_floating_capacitors,
    regulator_current,
    through_regulators,
    wires_of,
    without_zero_sequence,
)
from voltier.grid.flow.port import Array, Complex, Flow, Index, Mask, check_places
from voltier.grid.network import balanced_network
from voltier.grid.perunit import PerUnit
from voltier.grid.topology import reached

FREQUENCY_HZ = 60.0
U_RATED_V = 1000.0  # the tree is per unit; any nominal voltage serves
TOLERANCE_PU, MAX_ITERATIONS = 1e-10, 40
SOURCE_VA = 1e14
"""Short-circuit power of the source: stiff to 3e-8 p.u. at 3 MVA, and its power is read to a hundredth of a watt."""
CONST_POWER, CONST_IMPEDANCE = 0, 1
PAIRS = ("aa", "ba", "bb", "ca", "cb", "cc")


class PowerGridModelFlow:
    """power-grid-model behind the PowerFlow port, by its asymmetric Newton-Raphson calculation.

    Lines keep their full series and shunt matrices (its asym_line); single-phase and two-phase lines get wires of the
    same impedance, uncoupled, on the phases they lack, where nothing is connected and so no current flows: exact.
    Its transformers have one tap for all phases; here regulators are ratios folded into the matrices, phase by phase:
    exact too, and a move of taps builds the model anew. Capacitors are constant-impedance loads of each phase.
    Transformers grounded on both sides are series impedances. Behind a delta winding, where nothing but the voltage
    source side's shape is defined, there may be neither injection nor capacitor nor line charging; buses there get the
    voltages of the idle winding. The port's injections are from phase to ground: there are no delta loads to represent.
    """

    def __init__(self, feeder: Feeder) -> None:
        self._feeder = feeder
        self._network = balanced_network(feeder, np.zeros(len(feeder.regulators.name), dtype=np.int64))
        self._fed, self._open = reached(feeder), reached(feeder, through_delta=False)
        refuse_floating_capacitors(feeder)
        self._refuse_floating_lines()
        live = np.flatnonzero(self._network.node_of_bus >= 0)
        grounded = np.zeros(len(self._network.parent), dtype=np.bool_)
        grounded[self._network.node_of_bus[live[self._open[live].any(axis=1)]]] = True
        self._nodes = np.flatnonzero(grounded)
        self._branches = self._nodes[self._nodes > 0]
        self._z_pu, self._b_pu = branch_impedance(feeder, self._network), self._charging()
        self._wires = wires_of(feeder, self._network)
        self._cap_s = np.einsum("bii->bi", capacitor_matrix(feeder))
        self._tap = np.zeros(0, dtype=np.int64)
        self._fold: Fold | None = None
        self._model: Any = None

    def solve(self, p_kw: Array, q_kvar: Array, tap: Index) -> Flow:
        """Solve for constant-power injections at every bus and phase (see PowerFlow.solve)."""
        check_places(self._feeder.bus, self._open, p_kw, q_kvar)
        if self._fold is None or not np.array_equal(tap, self._tap):
            self._tap, self._fold = np.array(tap), fold(self._feeder, self._network, tap)
            self._model = self._build(self._fold)
        inject_kva = p_kw + 1j * q_kvar
        result = self._run(inject_kva)
        return self._flow(result, inject_kva, self._fold.factor)

    def _refuse_floating_lines(self) -> None:
        lines = self._feeder.lines
        charged = lines.b_us.any(axis=(1, 2)) & self._fed[lines.from_bus].any(axis=1)
        floating = charged & ~self._open[lines.from_bus].any(axis=1)
        remedy = "use the engine opendss: behind a delta winding this one has no ground for line charging"
        problems = [
            Problem("lines", "line", lines.name[k], remedy) for k in np.flatnonzero(floating).tolist()
        ]
        if problems:
            raise InputError(problems)

    def _charging(self) -> Array:
        """Give the shunt matrix of the line above each node per unit, (n_node, 3, 3)."""
        network, lines = self._network, self._feeder.lines
        b_pu = np.zeros((len(network.parent), 3, 3))
        rows = np.flatnonzero(network.line >= 0)
        base = np.asarray(PerUnit(network.s_base_kva, self._feeder.kv_ll[network.send_bus[rows]]).z_base_ohm)
        b_pu[rows] = lines.b_us[network.line[rows]] * 1e-6 * base[:, None, None]
        return b_pu

    def _build(self, folded: Fold) -> Any:
        """Make the model at given ratios, without injections; ids are rows: nodes, then the others."""
        n, nodes = len(self._network.parent), self._nodes
        node = pgm.initialize_array("input", "node", len(nodes))
        node["id"], node["u_rated"] = nodes, U_RATED_V
        source = pgm.initialize_array("input", "source", 1)
        source["id"], source["node"], source["status"] = n, 0, 1
        source["u_ref"], source["sk"] = self._feeder.source_v_pu, SOURCE_VA
        source["rx_ratio"], source["z01_ratio"] = 0.1, 1.0
        inject = pgm.initialize_array("input", "asym_gen", len(nodes))
        inject["id"], inject["node"], inject["status"] = 2 * n + nodes, nodes, 1
        inject["type"], inject["p_specified"], inject["q_specified"] = CONST_POWER, 0.0, 0.0
        data = {
            "node": node,
            "source": source,
            "asym_gen": inject,
            "asym_line": self._lines(folded.scale),
            "asym_load": self._capacitors(folded.factor),
        }
        return pgm.PowerGridModel(data, system_frequency=FREQUENCY_HZ)

    def _lines(self, scale: Array) -> Any:
        """Fill the lines' matrices, referred to the root's voltage."""
        network, rows = self._network, self._branches
        line = pgm.initialize_array("input", "asym_line", len(rows))
        line["id"], line["from_node"], line["to_node"] = (
            len(network.parent) + rows,
            network.parent[rows],
            rows,
        )
        line["from_status"] = line["to_status"] = 1
        line["i_n"] = 1.0
        product = scale[rows][:, :, None] * scale[rows][:, None, :]
        z_pu, wires = self._z_pu[rows] / product, self._wires[rows]
        own = np.einsum("kii->ki", z_pu)
        mean = own.sum(axis=1) / wires.sum(axis=1)
        z_pu += np.where(wires, 0.0, mean[:, None])[:, :, None] * np.eye(3)
        ohm = U_RATED_V**2 / (1000.0 * network.s_base_kva)
        z_ohm, b_s = z_pu * ohm, self._b_pu[rows] * product / ohm
        for pair in PAIRS:
            i, j = ("abc".index(letter) for letter in pair)
            line[f"r_{pair}"], line[f"x_{pair}"] = z_ohm[:, i, j].real, z_ohm[:, i, j].imag
            line[f"c_{pair}"] = b_s[:, i, j] / (2.0 * np.pi * FREQUENCY_HZ)
        return line

    def _capacitors(self, factor: Array) -> Any:
        """Give each node's capacitors as consumption at nominal folded voltage, which grows with its square."""
        volts = phase_volts(self._feeder)[:, None] * factor
        var = np.where(self._open, self._cap_s * volts**2, 0.0)
        load = pgm.initialize_array("input", "asym_load", len(self._nodes))
        load["id"], load["node"], load["status"] = 3 * len(self._network.parent) + self._nodes, self._nodes, 1
        load["type"], load["p_specified"] = CONST_IMPEDANCE, 0.0
        load["q_specified"] = -self._at_nodes(var).real
        return load

    def _at_nodes(self, at_bus: Array | Complex) -> Complex:
        """Add up over the buses of each node of the model, (n, 3)."""
        network = self._network
        live = network.node_of_bus >= 0
        total = np.zeros((len(network.parent), 3), dtype=np.complex128)
        np.add.at(total, network.node_of_bus[live], at_bus[live])
        return total[self._nodes]

    def _run(self, inject_kva: Complex) -> Any:
        power = 1000.0 * self._at_nodes(inject_kva)
        update = pgm.initialize_array("update", "asym_gen", len(self._nodes))
        update["id"] = 2 * len(self._network.parent) + self._nodes
        update["status"], update["p_specified"], update["q_specified"] = 1, power.real, power.imag
        self._model.update(update_data={"asym_gen": update})
        try:
            result = self._model.calculate_power_flow(
                symmetric=False,
                error_tolerance=TOLERANCE_PU,
                max_iterations=MAX_ITERATIONS,
                calculation_method=pgm.CalculationMethod.newton_raphson,
                threading=-1,
                output_component_types={
                    "node": {"u_pu", "u_angle"},
                    "asym_line": {"p_from", "q_from", "p_to"},
                    "source": {"p", "q"},
                },
            )
        except PowerGridError as error:
            name = self._feeder.name
            raise NotConvergedError(
                f"power-grid-model found no power flow of feeder {name}: {error}"
            ) from error
        if not np.isfinite(result["node"]["u_pu"]).all():
            raise NotConvergedError(
                f"power-grid-model's voltages of feeder {self._feeder.name} are not numbers"
            )
        return result

    def _flow(self, result: Any, inject_kva: Complex, factor: Array) -> Flow:
        """Gather the results of a run."""
        network, feeder, count = self._network, self._feeder, len(self._network.parent)
        u_pu = np.full((count, 3), np.nan + 1j * np.nan)
        u_pu[self._nodes] = result["node"]["u_pu"] * np.exp(1j * result["node"]["u_angle"])
        u_pu = _idle_behind(u_pu, network.parent)
        floating = self._fed & ~self._open
        v_pu = np.where(self._fed, u_pu[network.node_of_bus] * factor, np.nan)
        v_pu = without_zero_sequence(v_pu, floating)
        send, line = np.zeros((count, 3), dtype=np.complex128), result["asym_line"]
        send[self._branches] = (line["p_from"] + 1j * line["q_from"]) / 1000.0
        volts = np.nan_to_num(np.abs(v_pu)) * phase_volts(feeder)[:, None]
        shunt_kva = -1j * self._cap_s * volts**2 / 1000.0
        beyond = through_regulators(feeder, network, inject_kva - shunt_kva, send)
        source = result["source"]
        return Flow(
            v_pu=v_pu,
            p_cc_kw=-source["p"][0] / 1000.0,
            q_cc_kvar=-source["q"][0] / 1000.0,
            loss_kw=float((line["p_from"] + line["p_to"]).sum() / 1000.0),
            i_regulator_a=regulator_current(feeder, v_pu, beyond),
            converged=True,
        )


def _idle_behind(u_pu: Complex, parent: Index) -> Complex:
    """Hand the voltages down to nodes outside the model: no current flows there."""
    known: Mask = np.asarray(np.isfinite(u_pu).all(axis=1))
    for node in range(1, len(parent)):
        if not known[node]:
            u_pu[node] = u_pu[parent[node]]
    return u_pu
