"""Areas of a feeder that clear in processes of their own: rounds, slots of the channel and bytes to agreement.

Run with OMP_NUM_THREADS=1. Every area knows its own operators' bids only and begins where nobody knows anything; the
channel is simulated and loses the given share of packets. Bytes are those of a channel that loses none, 8 for a number,
headers not counted. Errors are against the central optimum at the AC-exact dispatch. "one process" is the same method
with every node an atom, from the same start. --quick leaves out IEEE-34 in three phases.
"""

import argparse
from typing import Any

import numpy as np
from scipy import sparse

from voltier.grid.feeder import read_feeder
from voltier.grid.network import balanced_network
from voltier.grid.threephase_build import three_phase_network
from voltier.market.primary.distributed.area import AreaSolver
from voltier.market.primary.distributed.atoms import Profile, per_area, per_node
from voltier.market.primary.distributed.exchange import Packet, Transport
from voltier.market.primary.distributed.families import BranchFlowFamily, CurrentFamily
from voltier.market.primary.distributed.options import Options, StoppingRule
from voltier.market.primary.distributed.program import solve_central
from voltier.market.primary.distributed.successive import solve_successive
from voltier.market.primary.distributed.tangent_branch_flow import BranchFlowPoint, BranchFlowTangent
from voltier.market.primary.distributed.tangent_current import CurrentTangent
from voltier.market.primary.market import PrimaryMarket
from voltier.market.primary.problem import PrimaryBids, PrimaryPrices, scale_bids
from voltier.market.primary.three_phase.market import ThreePhaseMarket
from voltier.market.primary.three_phase.problem import SocialWeights, scale_problem

PRICES = PrimaryPrices(0.10, 1e-5, 0.10)
OPTIONS = Options(stop=StoppingRule(look_every=10))
LOSSES = (0.0, 0.05, 0.2)


def bids_of(p: np.ndarray) -> PrimaryBids:
    """Return flexible bids of loads p [kW]."""
    return PrimaryBids(
        p0_kw=-p, p_min_kw=-1.1 * p, p_max_kw=-0.75 * p, beta_p_usd_per_kw2h=0.2 / p, q0_kvar=-0.4 * p,
        q_min_kvar=-0.6 * p, q_max_kvar=-0.2 * p, beta_q_usd_per_kvar2h=0.05 / p,
        gen_max_kw=np.where(np.arange(len(p)) % 8 == 0, 30.0, 0.0), alpha_usd_per_kw2h=np.full(len(p), 0.12 / 30.0),
    )  # fmt: skip


class Feeder:
    """A feeder whose spot loads bid; family(bids) : its tangent programs, optimum : of the central market."""

    def __init__(self, kind: str, name: str) -> None:
        feeder, self._balanced = read_feeder(name), kind == "branch flow"
        tap, limits = feeder.regulators.published_tap, {"v_min_pu": 0.9, "v_max_pu": 1.1}
        if self._balanced:
            self._network: Any = balanced_network(feeder, tap, **limits)
            rows = feeder.load_buses
            p = 0.8 * np.bincount(feeder.spot_loads.bus, feeder.spot_loads.p_kw, len(feeder.bus))[rows]
            node = self._network.node_of_bus[rows]
            market: Any = PrimaryMarket(self._network, node)
            self.tangent: Any = BranchFlowTangent(self._network, node)
            size = self.tangent.size
            self.controls, self.balances = slice(size.control, size.head), slice(0, size.n_node)
        else:
            full, self._network = (
                three_phase_network(feeder, tap),
                three_phase_network(feeder, tap, loads=False, **limits),
            )
            touched = (abs(full.loads.across) > 0).astype(float)
            share = sparse.csc_matrix(touched.multiply(1.0 / touched.sum(axis=1)).T)
            s = full.loads.s_power + full.loads.s_current + full.loads.s_impedance
            p = 0.8 * s.real * full.s_phase_kva
            market, self.tangent = (
                ThreePhaseMarket(self._network, share),
                CurrentTangent(self._network, share),
            )
            layout = self.tangent.layout
            self.controls, self.balances = slice(layout.control, layout.head), slice(0, layout.n_free)
        self.bids = bids_of(p)
        market.clear(self.bids, PRICES, bound=False)
        last = market._exact._warm
        point = (
            BranchFlowPoint(last.state, last.y[self.tangent.size.current :])
            if self._balanced
            else self.tangent.point(last.v, PRICES.import_usd_per_kwh)
        )
        self.whole = self.family(self.bids)
        self.program = self.whole.at(point)
        self.optimum = solve_central(self.program)

    def family(self, bids: PrimaryBids) -> Any:
        """Return the tangent programs of who knows these bids."""
        if self._balanced:
            return BranchFlowFamily(
                self.tangent, self._network, scale_bids(bids, PRICES, self._network.s_base_kva)
            )
        problem = scale_problem(bids, PRICES, SocialWeights(), self._network.s_phase_kva)
        return CurrentFamily(self.tangent, self._network, problem)

    def area(self, profile: Profile, number: int) -> AreaSolver[Any]:
        """Return one area, which knows its own operators' bids."""
        home = self.program.column_place[self.controls][: len(self.bids.p0_kw)]
        own = profile.atom_of_place[home] == number
        known = {
            name: np.where(own, getattr(self.bids, name), 0.0) for name in PrimaryBids.__dataclass_fields__
        }
        family = self.family(PrimaryBids(**known))
        return AreaSolver(family, *family.flat(), profile, number, OPTIONS, transport=Transport())


def run(areas: list[AreaSolver[Any]], loss: float, random: np.random.Generator) -> int:
    """Run areas to their end over a channel that takes a slot for a packet or loses it; return the slots."""
    slots, under_way = 0, list[Packet]()
    while not all(area.done for area in areas):
        slots += 1
        arriving, under_way = under_way, []
        for number, area in enumerate(areas):
            sent = area.slot([packet for packet in arriving if packet.receiver == number])
            under_way += [packet for packet in sent if random.random() >= loss]
    return slots


def report(kind: str, name: str) -> None:
    """Print one block of the table."""
    feeder = Feeder(kind, name)
    point, x = feeder.whole.flat()
    start = feeder.whole.at(point)
    one = solve_successive(feeder.whole, point, x, per_node(start), "nst-pac", OPTIONS)
    print(
        f"{kind} {name[4:]}: one process, {start.n_place} atoms, {one.rounds} rounds at {one.points} points"
    )
    for wanted in (2, 4, 8):
        profile = per_area(start, wanted)
        count, slots, kept = int(profile.atom_of_place.max()) + 1, [], []
        for loss in LOSSES:
            areas = [feeder.area(profile, number) for number in range(count)]
            slots.append(run(areas, loss, np.random.default_rng(3)))
            if any(area.failure for area in areas):
                print(f"{count:8} {areas[0].failure}")
                return
            kept = kept or areas
        found = [area.solution() for area in kept]
        x_all, y_all = feeder.optimum.x.copy(), feeder.optimum.y.copy()
        for part in found:
            x_all[part.own_column], y_all[part.own_row] = part.x[part.own_column], part.duals[part.own_row]
        away = np.abs(x_all - feeder.optimum.x)[feeder.controls].max()
        true = feeder.optimum.y[feeder.balances]
        price = np.abs(y_all[feeder.balances] - true).max() / np.abs(true).max()
        sent, packets = (sum(getattr(a, k) for a in kept) for k in ("bytes_sent", "packets_sent"))
        print(
            f"{count:8}{found[0].rounds:8}{found[0].points:8}" + "".join(f"{s:8}" for s in slots)
            + f"{sent / 1e3:10.1f}{packets:10}{away:10.1e}{price:10.1e}", flush=True,
        )  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    losses = "".join(f"{f'{100 * loss:.0f} %':>8}" for loss in LOSSES)
    head = f"{'areas':>8}{'rounds':>8}{'points':>8}{losses}{'kB':>10}{'packets':>10}{'set p.u.':>10}{'price':>10}"
    print(f"{head}   (per cent: slots where that much is lost)")
    for name in ("ieee13", "ieee34", "ieee123"):
        report("branch flow", name)
    for name in ("ieee13",) if quick else ("ieee13", "ieee34"):
        report("current injection", name)


if __name__ == "__main__":
    main()
