"""Power flow by pandapower, an independent check: balanced, and in three phases where it can.

Both work on the tree of voltier.grid.network. Ideal ratios on a tree are folded into the per-unit bases:
with s_j the product of all ratios from the root to node j, u_j = v_j/s_j, z/s_j² and b·s_j² obey the same
equations without transformers, which pandapower's Newton method does not like when they have next to no
impedance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandapower as pp
from numpy.typing import NDArray

from voltier.grid.errors import InputError, NotConvergedError, Problem
from voltier.grid.feeder import Feeder
from voltier.grid.flow.port import Array, Complex, Flow, Index, check_places
from voltier.grid.network import BalancedNetwork, LateralImpedance, balanced_network, retap
from voltier.grid.perunit import PerUnit
from voltier.grid.topology import gangs, reached

TOLERANCE_MVA = 1e-11
MAX_ITERATIONS = 30
VN_KV = 1.0  # the tree is per unit; any nominal voltage serves
SHUNT_TOLERANCE_PU, SHUNT_PASSES = 1e-9, 30
ROTATION = np.exp(-2j * np.pi / 3.0 * np.arange(3))
UNLIMITED_KA = 1e6


@dataclass(frozen=True, slots=True)
class TreeFlow:
    """A solved balanced tree.

    v_pu : (n_node,) complex
    send_kva : (n_node,) complex power leaving the parent into the branch, 0 at node 0
    loss_kw : (n_node,) of each branch; import_kva : complex power from the source
    """

    v_pu: Complex
    send_kva: Complex
    loss_kw: Array
    import_kva: complex


class BalancedTree:
    """A balanced network in pandapower, built once; taps and injections may change between solutions."""

    def __init__(self, network: BalancedNetwork) -> None:
        n_node = len(network.parent)
        self._net = _tree(network)
        pp.create_shunts(self._net, range(n_node), q_mvar=0.0)
        pp.create_sgens(self._net, range(n_node), p_mw=0.0)

    def solve(self, network: BalancedNetwork, p_kw: Array, q_kvar: Array) -> TreeFlow:
        """Solve for injections at the nodes, (n_node,) [kW, kvar], by Newton's method.

        network : the one given at the start, or the same after retap
        """
        net, scale = self._net, _scale(network.parent, network.ratio)
        s_base_mva = network.s_base_kva / 1000.0
        z_ohm = (network.r_pu + 1j * network.x_pu) / scale**2 * VN_KV**2 / s_base_mva
        net.line["r_ohm_per_km"], net.line["x_ohm_per_km"] = z_ohm.real[1:], z_ohm.imag[1:]
        net.shunt["q_mvar"] = -network.b_pu * scale**2 * s_base_mva
        net.sgen["p_mw"], net.sgen["q_mvar"] = p_kw / 1000.0, q_kvar / 1000.0
        try:
            pp.runpp(
                net,
                algorithm="nr",
                init="flat",
                tolerance_mva=TOLERANCE_MVA,
                max_iteration=MAX_ITERATIONS,
                numba=False,
            )
        except pp.LoadflowNotConverged as error:
            raise NotConvergedError(f"pandapower found no balanced power flow: {error}") from error
        bus, line, grid = net.res_bus, net.res_line, net.res_ext_grid
        send = 1000.0 * (line.p_from_mw.to_numpy() + 1j * line.q_from_mvar.to_numpy())
        return TreeFlow(
            v_pu=bus.vm_pu.to_numpy() * np.exp(1j * np.deg2rad(bus.va_degree.to_numpy())) * scale,
            send_kva=np.concatenate([[0j], send]),
            loss_kw=np.concatenate([[0.0], 1000.0 * line.pl_mw.to_numpy()]),
            import_kva=1000.0 * complex(grid.p_mw.iloc[0], grid.q_mvar.iloc[0]),
        )


class PandapowerFlow:
    """pandapower behind the PowerFlow port.

    phases : "balanced" solves the balanced equivalent for the sum of the phases at each bus: all phases get
        the same magnitude, p_cc is split evenly. "three" solves three phases by pandapower's runpp_3ph, which
        knows sequence impedances only: lines of three phases count as transposed (mean self, mean mutual
        impedance), of two phases with the mean of their self impedances; on IEEE 123 at published loading
        this moves voltages by up to 0.006 pu. Line charging and capacitors are exact. Regulators must have
        equal taps on all phases of a line behind them; behind a delta winding there may be neither injection
        nor capacitor.
    lateral_impedance : see balanced_network; only for "balanced".
    """

    def __init__(
        self,
        feeder: Feeder,
        *,
        phases: Literal["balanced", "three"],
        lateral_impedance: LateralImpedance = "true_drop",
    ) -> None:
        taps = np.zeros(len(feeder.regulators.name), dtype=np.int64)
        network = balanced_network(feeder, taps, lateral_impedance=lateral_impedance)
        self._solve = (
            _Balanced(feeder, network).solve if phases == "balanced" else _ThreePhase(feeder, network).solve
        )

    def solve(self, p_kw: Array, q_kvar: Array, tap: Index) -> Flow:
        """Solve for constant-power injections at every bus and phase (see PowerFlow.solve)."""
        return self._solve(p_kw, q_kvar, tap)


class _Balanced:
    def __init__(self, feeder: Feeder, network: BalancedNetwork) -> None:
        self._feeder, self._network, self._fed = feeder, network, reached(feeder)
        self._tree = BalancedTree(network)

    def solve(self, p_kw: Array, q_kvar: Array, tap: Index) -> Flow:
        feeder = self._feeder
        check_places(feeder.bus, self._fed, p_kw, q_kvar)
        network = retap(self._network, feeder, tap)
        live = network.node_of_bus >= 0
        node, n_node = network.node_of_bus[live], len(network.parent)
        inject = (p_kw + 1j * q_kvar).sum(axis=1)
        p_node, q_node = (
            np.asarray(np.bincount(node, part[live], minlength=n_node), dtype=np.float64)
            for part in (inject.real, inject.imag)
        )
        tree = self._tree.solve(network, p_node, q_node)
        v_bus = np.where(live, tree.v_pu[network.node_of_bus] * network.ratio_of_bus, np.nan)
        draw_kva = -inject - 1j * np.nan_to_num(network.b_bus_pu * np.abs(v_bus) ** 2) * network.s_base_kva
        np.add.at(draw_kva, network.send_bus[1:], tree.send_kva[1:])
        v_pu = np.where(self._fed, v_bus[:, None] * ROTATION, np.nan + 1j * np.nan)
        wires = np.bincount(network.gang_of_row)[network.gang_of_row]
        beyond = (network.gang_above.T @ draw_kva)[network.gang_of_row] / np.maximum(wires, 1)
        return Flow(
            v_pu=v_pu,
            p_cc_kw=np.full(3, -tree.import_kva.real / 3.0),
            q_cc_kvar=np.full(3, -tree.import_kva.imag / 3.0),
            loss_kw=float(tree.loss_kw.sum()),
            i_regulator_a=_regulator_current(feeder, v_pu, beyond),
            converged=True,
        )


class _ThreePhase:
    def __init__(self, feeder: Feeder, network: BalancedNetwork) -> None:
        self._feeder, self._network = feeder, network
        self._fed, self._open = reached(feeder), reached(feeder, through_delta=False)
        self._check_capacitors()
        self._net = _tree(network)
        for node in range(len(network.parent)):
            pp.create_asymmetric_sgen(self._net, node)
        self._sequence = _sequence_impedance(feeder, network)
        self._shunt = _shunt_matrix(feeder)
        self._wires = np.ones((len(network.parent), 3), dtype=np.bool_)
        lines = network.line >= 0
        self._wires[lines] = feeder.lines.has_phase[network.line[lines]]

    def solve(self, p_kw: Array, q_kvar: Array, tap: Index) -> Flow:
        feeder, network = self._feeder, self._network
        check_places(feeder.bus, self._open, p_kw, q_kvar)
        ratio, scale = self._ratios(tap)
        self._set_impedance(scale)
        factor = ratio * scale[network.node_of_bus]  # bus voltage over solved node voltage
        u_pu = np.broadcast_to(feeder.source_v_pu * ROTATION, (len(network.parent), 3))
        v_pu = np.asarray(u_pu[network.node_of_bus] * factor, dtype=np.complex128)
        shunt_kva = self._shunt_power(v_pu)
        for _ in range(SHUNT_PASSES):
            u_pu = self._run(p_kw + 1j * q_kvar - shunt_kva)
            v_pu = np.where(self._fed, u_pu[network.node_of_bus] * factor, np.nan)
            before, shunt_kva = shunt_kva, self._shunt_power(v_pu)
            if np.abs(shunt_kva - before).max() < SHUNT_TOLERANCE_PU * network.s_base_kva:
                return self._flow(p_kw + 1j * q_kvar - before, v_pu)
        raise NotConvergedError(
            f"shunts of feeder {feeder.name} did not settle in {SHUNT_PASSES} power flows"
        )

    def _check_capacitors(self) -> None:
        feeder, capacitors = self._feeder, self._feeder.capacitors
        remedy = "use the engine opendss: behind a delta winding this one has no ground"
        places = [
            feeder.bus[bus]
            for bus in np.unique(capacitors.bus[~self._open[capacitors.bus, capacitors.phase]])
        ]
        if places:
            raise InputError([Problem("capacitors", "bus", bus, remedy) for bus in places])

    def _ratios(self, tap: Index) -> tuple[Array, Array]:
        """Give v_bus/v_node at each (bus, phase), and the ratios multiplied down to each (node, phase)."""
        feeder, network = self._feeder, self._network
        regulators = feeder.regulators
        ratio = np.ones((len(feeder.bus), 3))
        for k, phase in enumerate(regulators.phase):
            above = network.gang_above[:, network.gang_of_row[k]]
            ratio[above, phase] *= 1.0 + tap[k] * regulators.tap_step_pu[k]
        sent = np.ones((len(network.parent), 3))
        sent[1:] = ratio[network.send_bus[1:]]
        scale = _scale(network.parent, sent)
        largest = np.where(self._wires, scale, -np.inf).max(axis=1)
        smallest = np.where(self._wires, scale, np.inf).min(axis=1)
        if (largest - smallest > 1e-12).any():
            raise InputError(self._uneven(tap))
        return ratio, scale

    def _uneven(self, tap: Index) -> list[Problem]:
        """Name the regulators that do not treat the phases of their bus alike."""
        feeder, taps = self._feeder, np.asarray(tap)
        regulators = feeder.regulators
        remedy = (
            "use equal taps on all phases, or the engine opendss: pandapower has one ratio for three phases"
        )
        return [
            Problem(f"regulator {regulators.name[rows[0]]}", "tap", taps[rows].tolist(), remedy)
            for rows in gangs(feeder)
            if len(set(taps[rows].tolist())) > 1
            or len(rows) < feeder.has_phase[regulators.to_bus[rows[0]]].sum()
        ]

    def _set_impedance(self, scale: Array) -> None:
        """Refer the impedances to the root's voltage; absent wires of a lateral take those of its phase."""
        own = np.argmax(self._wires, axis=1)
        square = scale[np.arange(len(own)), own] ** 2
        z_ohm = self._sequence / square[:, None] * VN_KV**2 * 1000.0 / self._network.s_base_kva
        columns = ["r_ohm_per_km", "x_ohm_per_km", "r0_ohm_per_km", "x0_ohm_per_km"]
        self._net.line.loc[:, columns] = np.column_stack(
            [z_ohm.real[:, 0], z_ohm.imag[:, 0], z_ohm.real[:, 1], z_ohm.imag[:, 1]]
        )[1:]

    def _shunt_power(self, v_pu: Complex) -> Complex:
        """Give what capacitors and line charging draw at each (bus, phase), (n_bus, 3) [kVA]."""
        volts = np.nan_to_num(v_pu) * _phase_volts(self._feeder)[:, None]
        current_a = np.einsum("bij,bj->bi", 1j * self._shunt, volts)
        return volts * np.conj(current_a) / 1000.0

    def _run(self, inject_kva: Complex) -> Complex:
        """Solve for injections at (bus, phase); gives the referred node voltages, (n_node, 3)."""
        net, network = self._net, self._network
        live = network.node_of_bus >= 0
        at_node = np.zeros((len(network.parent), 3), dtype=np.complex128)
        np.add.at(at_node, network.node_of_bus[live], inject_kva[live])
        for k, phase in enumerate("abc"):
            net.asymmetric_sgen[f"p_{phase}_mw"] = at_node[:, k].real / 1000.0
            net.asymmetric_sgen[f"q_{phase}_mvar"] = at_node[:, k].imag / 1000.0
        try:
            pp.runpp_3ph(net, tolerance_mva=TOLERANCE_MVA, max_iteration=MAX_ITERATIONS, numba=False)
        except pp.LoadflowNotConverged as error:
            raise NotConvergedError(f"pandapower found no three-phase power flow: {error}") from error
        bus = net.res_bus_3ph
        magnitude = np.column_stack([bus[f"vm_{phase}_pu"] for phase in "abc"])
        angle = np.column_stack([bus[f"va_{phase}_degree"] for phase in "abc"])
        if not np.isfinite(magnitude).all():  # runpp_3ph calls a run that ended in not-a-numbers converged
            raise NotConvergedError(
                "pandapower found no three-phase power flow: its voltages are not numbers"
            )
        return magnitude * np.exp(1j * np.deg2rad(angle))

    def _flow(self, inject_kva: Complex, v_pu: Complex) -> Flow:
        """Gather the results of the last run."""
        network, line, grid = self._network, self._net.res_line_3ph, self._net.res_ext_grid_3ph
        send = 1000.0 * _power(line, "from_")
        draw_kva = -inject_kva
        np.add.at(draw_kva, network.send_bus[1:], send)
        beyond = (network.gang_above.T @ draw_kva)[network.gang_of_row, self._feeder.regulators.phase]
        imported = 1000.0 * _power(grid, "")[0]
        floating = self._fed & ~self._open
        v_pu = v_pu.copy()
        # a delta winding passes no zero sequence
        v_pu[floating] = (v_pu - v_pu.mean(axis=1, keepdims=True))[floating]
        return Flow(
            v_pu=v_pu,
            p_cc_kw=-imported.real,
            q_cc_kvar=-imported.imag,
            loss_kw=float(1000.0 * sum(line[f"pl_{phase}_mw"].sum() for phase in "abc")),
            i_regulator_a=_regulator_current(self._feeder, v_pu, beyond),
            converged=True,
        )


def _power(table: Any, end: str) -> Complex:
    """Read complex power by phase from a results table, (n, 3) [MVA]."""
    return np.column_stack(
        [
            table[f"p_{phase}_{end}mw"].to_numpy() + 1j * table[f"q_{phase}_{end}mvar"].to_numpy()
            for phase in "abc"
        ]
    )


def _tree(network: BalancedNetwork) -> Any:
    """Build a pandapower net: a bus per node, a line per branch with impedance to be set, the source."""
    net = pp.create_empty_network(sn_mva=network.s_base_kva / 1000.0)
    n_node = len(network.parent)
    pp.create_buses(net, n_node, vn_kv=VN_KV)
    pp.create_ext_grid(
        net, 0, vm_pu=network.v_root_pu, s_sc_max_mva=1e9, rx_max=0.1, x0x_max=1.0, r0x0_max=0.1
    )
    pp.create_lines_from_parameters(
        net,
        network.parent[1:],
        range(1, n_node),
        length_km=1.0,
        r_ohm_per_km=1.0,
        x_ohm_per_km=1.0,
        c_nf_per_km=0.0,
        max_i_ka=UNLIMITED_KA,
        r0_ohm_per_km=1.0,
        x0_ohm_per_km=1.0,
        c0_nf_per_km=0.0,
    )
    return net


def _scale(parent: Index, ratio: NDArray[np.float64]) -> NDArray[np.float64]:
    """Multiply the ratios from the root down to each node, (n_node, ...)."""
    scale = np.ones_like(ratio)
    for node in range(1, len(parent)):
        scale[node] = scale[parent[node]] * ratio[node]
    return scale


def _sequence_impedance(feeder: Feeder, network: BalancedNetwork) -> Complex:
    """Give positive- and zero-sequence impedance of each branch per unit, (n_node, 2)."""
    sequence = np.zeros((len(network.parent), 2), dtype=np.complex128)
    for node in range(1, len(network.parent)):
        row = network.line[node]
        if row < 0:
            sequence[node] = network.r_pu[node] + 1j * network.x_pu[node]
            continue
        pick = np.ix_(*[feeder.lines.has_phase[row]] * 2)
        z_ohm = (feeder.lines.r_ohm[row] + 1j * feeder.lines.x_ohm[row])[pick]
        n = len(z_ohm)
        z_self = np.trace(z_ohm) / n
        z_mutual = (z_ohm.sum() - np.trace(z_ohm)) / max(n * (n - 1), 1)
        base = PerUnit(network.s_base_kva, float(feeder.kv_ll[network.send_bus[node]])).z_base_ohm
        sequence[node] = np.array([z_self - z_mutual, z_self + 2.0 * z_mutual]) / base
    return sequence


def _shunt_matrix(feeder: Feeder) -> Array:
    """Give the susceptance of capacitors and half of each line's charging at each bus, (n_bus, 3, 3) [S]."""
    matrix = np.zeros((len(feeder.bus), 3, 3))
    lines, capacitors = feeder.lines, feeder.capacitors
    np.add.at(matrix, lines.from_bus, lines.b_us * 0.5e-6)
    np.add.at(matrix, lines.to_bus, lines.b_us * 0.5e-6)
    siemens = capacitors.q_kvar * 1e-3 * 3.0 / capacitors.kv_ll**2
    np.add.at(matrix, (capacitors.bus, capacitors.phase, capacitors.phase), siemens)
    return matrix


def _phase_volts(feeder: Feeder) -> Array:
    return np.asarray(PerUnit(1.0, feeder.kv_ll).v_base_v)


def _regulator_current(feeder: Feeder, v_pu: Complex, beyond_kva: Complex) -> Complex:
    """Turn the power that passes each regulator into its current at to_bus, (n_reg,) [A]."""
    regulators = feeder.regulators
    volts = v_pu[regulators.to_bus, regulators.phase] * _phase_volts(feeder)[regulators.to_bus]
    return np.conj(1000.0 * beyond_kva / volts)
