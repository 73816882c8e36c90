"""The physical grid as an operator: injections in, three-phase power flow, measurements out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from voltier.agents.clock import MINUTE_S
from voltier.agents.messages import Index, Injections, Measurement, Taps
from voltier.agents.operator import Mail, Outbox, Rows
from voltier.agents.premises import PremisesRecord
from voltier.grid.errors import FederationError, NotConvergedError
from voltier.grid.feeder import Feeder
from voltier.grid.flow.port import Clocked, Flow, PowerFlow
from voltier.grid.regulators import next_taps, regulators_above

_PHASE = "abc"
_SETTLING_ROUNDS = 10
"""Rounds in which regulators find their place before the first minute; each round moves every one of them."""


class GridOperator:
    """Runs the power flow once a minute and moves the regulators' taps for the next one.

    tap : (n_reg,) positions at the start. controlled : whether regulators act on line-drop compensation, or stay.
    areas : areas of the primary market that clear it in the primary operator's place, and so need the taps too
    metered_by : operators beside the primary one that read the substation's meter.
    record_period_s : between records of devices that live in the engine.
    """

    name = "grid"

    def __init__(
        self,
        feeder: Feeder,
        engine: PowerFlow,
        tap: Index,
        *,
        controlled: bool,
        v_min_pu: float,
        v_max_pu: float,
        areas: Sequence[str] = (),
        metered_by: Sequence[str] = ("resilience",),
        record_period_s: int = 300,
    ) -> None:
        self._premises = PremisesRecord(record_period_s)
        self._metered_by = ("pmo", *metered_by)
        self._feeder, self._engine, self._tap, self._controlled = feeder, engine, tap, controlled
        self._limits, self._tap_readers = (v_min_pu, v_max_pu), ("pmo", *areas)
        self._settled = False
        self._outside: frozenset[tuple[int, int]] = frozenset()

    def decide(self, now_s: int, inbox: Sequence[Mail]) -> Outbox:
        """Solve the minute's power flow on the injections received and report what the meters see."""
        t_s = now_s // MINUTE_S * MINUTE_S
        p_kw, q_kvar = self._gather([mail.body for mail in inbox if isinstance(mail.body, Injections)])
        try:
            if isinstance(self._engine, Clocked):
                self._engine.begin(t_s)
            flow = self._engine.solve(p_kw, q_kvar, self._tap)
            if self._controlled and not self._settled:
                flow = self._settle(flow, p_kw, q_kvar)
        except (NotConvergedError, FederationError) as error:
            text = f"power flow of minute {t_s // MINUTE_S} (simulated second {t_s}): {error}"
            raise type(error)(text) from error
        outbox = Outbox()
        measurement = Measurement(t_s=t_s, p_cc_kw=flow.p_cc_kw, q_cc_kvar=flow.q_cc_kvar)
        outbox.mail += [Mail(self.name, to, measurement) for to in self._metered_by]
        taps = Taps(t_s=t_s, tap=self._tap)
        outbox.mail += [Mail(self.name, to, taps) for to in self._tap_readers]
        next_tap = next_taps(self._feeder, flow, self._tap) if self._controlled else self._tap
        if flow.own is not None:
            p_kw, q_kvar = p_kw + flow.own.p_kw, q_kvar + flow.own.q_kvar
            outbox.rows += self._premises.take(t_s, flow.own)
        self._record(t_s, flow, p_kw, q_kvar, outbox)
        if flow.note:
            outbox.rows.append(_event(t_s, "power-flow", flow.note))
        self._watch_limits(t_s, np.abs(flow.v_pu), next_tap, outbox)
        self._tap = next_tap
        return outbox

    def _settle(self, flow: Flow, p_kw: np.ndarray, q_kvar: np.ndarray) -> Flow:
        """Let the regulators settle on the first minute's load: the feeder did not come to life at time zero."""
        for _ in range(_SETTLING_ROUNDS):
            tap = next_taps(self._feeder, flow, self._tap)
            if np.array_equal(tap, self._tap):
                break
            self._tap = tap
            flow = self._engine.solve(p_kw, q_kvar, self._tap)
        self._settled = True
        return flow

    def _gather(self, parts: Sequence[Injections]) -> tuple[np.ndarray, np.ndarray]:
        p_kw = np.zeros((len(self._feeder.bus), 3))
        q_kvar = np.zeros_like(p_kw)
        for part in parts:
            np.add.at(p_kw, (part.bus, part.phase), part.p_kw)
            np.add.at(q_kvar, (part.bus, part.phase), part.q_kvar)
        return p_kw, q_kvar

    def _record(self, t_s: int, flow: Flow, p_kw: np.ndarray, q_kvar: np.ndarray, outbox: Outbox) -> None:
        here = self._feeder.has_phase
        v_pu = np.abs(flow.v_pu)
        grid = {"v_pu": v_pu[here], "p_kw": p_kw[here], "q_kvar": q_kvar[here]}
        outbox.rows.append(Rows("grid", t_s, grid))
        # Losses by phase close each phase's balance; the engine's own count of the losses checks their sum.
        loss_kw = p_kw.sum(axis=0) - flow.p_cc_kw
        substation = {
            "p_kw": flow.p_cc_kw,
            "q_kvar": flow.q_cc_kvar,
            "loss_kw": loss_kw,
            "balance_error_kw": np.full(3, loss_kw.sum() - flow.loss_kw),
        }
        outbox.rows.append(Rows("substation", t_s, substation))
        if len(self._tap):
            outbox.rows.append(Rows("taps", t_s, {"tap": self._tap.astype(np.float64)}))

    def _watch_limits(self, t_s: int, v_pu: np.ndarray, next_tap: Index, outbox: Outbox) -> None:
        """Log an event when the set of nodes outside the voltage limits grows or empties."""
        v_min, v_max = self._limits
        excess = np.nan_to_num(np.maximum(v_pu - v_max, v_min - v_pu), nan=-np.inf)
        now = frozenset(zip(*(axis.tolist() for axis in np.nonzero(excess > 0.0)), strict=True))
        if now - self._outside:
            bus, phase = (int(at) for at in np.unravel_index(int(np.argmax(excess)), excess.shape))
            limit = f"above {v_max:g}" if v_pu[bus, phase] > v_max else f"below {v_min:g}"
            text = (
                f"{len(now)} of {int(np.isfinite(v_pu).sum())} nodes outside {v_min:g} to {v_max:g} p.u.; farthest "
                f"{self._feeder.bus[bus]}.{_PHASE[phase]}, {_digits(excess[bus, phase])} p.u. {limit}: "
                f"{self._why_unbalanced(v_pu[bus])}; {self._why_tapped(bus, phase, next_tap)}"
            )
            outbox.rows.append(_event(t_s, "voltage", text))
        elif self._outside and not now:
            outbox.rows.append(
                _event(t_s, "voltage-restored", "all nodes are back inside the voltage limits")
            )
        self._outside = now

    def _why_unbalanced(self, v_pu: np.ndarray) -> str:
        """Say whether the bus is outside as a whole, or by a phase that leaves the mean of its phases."""
        v_min, v_max = self._limits
        mean = float(np.nanmean(v_pu))
        if np.isfinite(v_pu).sum() == 1:
            return "the bus has this phase alone"
        if v_min <= mean <= v_max:
            return (
                f"unbalance, the mean of its phases is {mean:.4f}, inside, which is all that the market sees"
            )
        return f"the mean of its phases is outside too, {mean:.4f}"

    def _why_tapped(self, bus: int, phase: int, next_tap: Index) -> str:
        """Say what the regulators on the way to the node can do about it."""
        regulators, states = self._feeder.regulators, []
        for row in regulators_above(self._feeder, bus, phase):
            tap, to = int(self._tap[row]), int(next_tap[row])
            if to != tap:
                state = f"moves to {to} after its delay"
            elif not self._controlled:
                state = "is fixed"
            elif abs(tap) == regulators.max_tap[row]:
                state = "is at its end"
            else:
                state = "rests, its own relay is inside its band"
            states.append(f"{regulators.name[row]} at tap {tap} {state}")
        return ", ".join(states) or "no regulator on the way to it"


def _digits(value: float) -> str:
    """Write a small number with two digits that count."""
    return np.format_float_positional(value, precision=2, fractional=False, trim="-")


def _event(t_s: int, kind: str, text: str) -> Rows:
    return Rows("events", t_s, {"source": ["grid"], "kind": [kind], "text": [text]})
