"""Power flow by pandapower, an independent check: balanced, and in three phases where it can.

Both work on the tree of voltier.grid.network, with ideal ratios folded into the per-unit bases, as
voltier.grid.flow.folded says: pandapower's Newton method does not like transformers that have next to no impedance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandapower as pp

from voltier.grid.errors import NotConvergedError
from voltier.grid.feeder import Feeder
from voltier.grid.flow.folded import (
    branch_impedance,
    fold,
    phase_volts,
    refuse_floating_capacitors,
    regulator_current,
    scale_of,
    shunt_matrix,
    through_regulators,
    wires_of,
    without_zero_sequence,
)
from voltier.grid.flow.port import Array, Complex, Flow, Index, check_places
from voltier.grid.network import BalancedNetwork, LateralImpedance, balanced_network, retap
from voltier.grid.topology import reached

TOLERANCE_MVA = 1e-11
MAX_ITERATIONS = 30
VN_KV = 1.0  # the tree is per unit; any nominal voltage serves
SHUNT_TOLERANCE_PU, SHUNT_PASSES = 1e-7, 30  # leaves 4e-9 pu of voltage on IEEE 123
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
        net, scale = self._net, scale_of(network.parent, network.ratio)
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
        this moves voltages by up to 0.006 pu. Where taps differ between phases, the impedances that they scale
        are averaged too: with the published taps and transposed lines, up to 0.0006 pu on IEEE 123, 0.002 on IEEE 13,
        0.014 on the long lines of IEEE 34. Ratios themselves, line charging and capacitors are exact; behind a delta
        winding there may be neither injection nor capacitor.
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
            i_regulator_a=regulator_current(feeder, v_pu, beyond),
            converged=True,
        )


class _ThreePhase:
    def __init__(self, feeder: Feeder, network: BalancedNetwork) -> None:
        self._feeder, self._network = feeder, network
        self._fed, self._open = reached(feeder), reached(feeder, through_delta=False)
        refuse_floating_capacitors(feeder)
        self._net = _tree(network)
        for node in range(len(network.parent)):
            pp.create_asymmetric_sgen(self._net, node)
        self._z_pu, self._wires = branch_impedance(feeder, network), wires_of(feeder, network)
        self._shunt = shunt_matrix(feeder)

    def solve(self, p_kw: Array, q_kvar: Array, tap: Index) -> Flow:
        feeder, network = self._feeder, self._network
        check_places(feeder.bus, self._open, p_kw, q_kvar)
        folded = fold(feeder, network, tap)
        self._set_impedance(folded.scale)
        factor = folded.factor
        u_pu = np.broadcast_to(feeder.source_v_pu * ROTATION, (len(network.parent), 3))
        v_pu = np.asarray(u_pu[network.node_of_bus] * factor, dtype=np.complex128)
        shunt_kva = self._shunt_power(v_pu)
        for once_more in range(SHUNT_PASSES):
            # the first pass starts from nothing, so that no trace of the previous call is left
            u_pu = self._run(p_kw + 1j * q_kvar - shunt_kva, init="results" if once_more else "auto")
            v_pu = np.where(self._fed, u_pu[network.node_of_bus] * factor, np.nan)
            before, shunt_kva = shunt_kva, self._shunt_power(v_pu)
            if np.abs(shunt_kva - before).max() < SHUNT_TOLERANCE_PU * network.s_base_kva:
                return self._flow(p_kw + 1j * q_kvar - before, v_pu)
        raise NotConvergedError(
            f"shunts of feeder {feeder.name} did not settle in {SHUNT_PASSES} power flows"
        )

    def _set_impedance(self, scale: Array) -> None:
        """Refer the impedances to the root's voltage, as sequences: transposed over the phases that are there."""
        z_pu = self._z_pu / (scale[:, :, None] * scale[:, None, :])
        count = self._wires.sum(axis=1)
        own = np.einsum("kii->k", z_pu)
        mutual = (z_pu.sum(axis=(1, 2)) - own) / np.maximum(count * (count - 1), 1)
        sequence = np.column_stack([own / count - mutual, own / count + 2.0 * mutual])
        z_ohm = sequence * VN_KV**2 * 1000.0 / self._network.s_base_kva
        columns = ["r_ohm_per_km", "x_ohm_per_km", "r0_ohm_per_km", "x0_ohm_per_km"]
        self._net.line.loc[:, columns] = np.column_stack(
            [z_ohm.real[:, 0], z_ohm.imag[:, 0], z_ohm.real[:, 1], z_ohm.imag[:, 1]]
        )[1:]

    def _shunt_power(self, v_pu: Complex) -> Complex:
        """Give what capacitors and line charging draw at each (bus, phase), (n_bus, 3) [kVA]."""
        volts = np.nan_to_num(v_pu) * phase_volts(self._feeder)[:, None]
        current_a = np.einsum("bij,bj->bi", 1j * self._shunt, volts)
        return volts * np.conj(current_a) / 1000.0

    def _run(self, inject_kva: Complex, *, init: str) -> Complex:
        """Solve for injections at (bus, phase) from an initial state of pandapower's; gives u, (n_node, 3)."""
        net, network = self._net, self._network
        live = network.node_of_bus >= 0
        at_node = np.zeros((len(network.parent), 3), dtype=np.complex128)
        np.add.at(at_node, network.node_of_bus[live], inject_kva[live])
        for k, phase in enumerate("abc"):
            net.asymmetric_sgen[f"p_{phase}_mw"] = at_node[:, k].real / 1000.0
            net.asymmetric_sgen[f"q_{phase}_mvar"] = at_node[:, k].imag / 1000.0
        try:
            pp.runpp_3ph(
                net, init=init, tolerance_mva=TOLERANCE_MVA, max_iteration=MAX_ITERATIONS, numba=False
            )
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
        send = np.concatenate([np.zeros((1, 3)), 1000.0 * _power(line, "from_")])
        beyond = through_regulators(self._feeder, network, inject_kva, send)
        imported = 1000.0 * _power(grid, "")[0]
        # a delta winding passes no zero sequence
        v_pu = without_zero_sequence(v_pu, self._fed & ~self._open)
        return Flow(
            v_pu=v_pu,
            p_cc_kw=-imported.real,
            q_cc_kvar=-imported.imag,
            loss_kw=float(1000.0 * sum(line[f"pl_{phase}_mw"].sum() for phase in "abc")),
            i_regulator_a=regulator_current(self._feeder, v_pu, beyond),
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
