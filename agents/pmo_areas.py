"""The primary operator of a market that its areas clear: it sees no bid, judges what they agreed on, settles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from voltier.agents.messages import AreaClearing, AreaMeters, Message, SmoBids
from voltier.agents.operator import Outbox
from voltier.agents.pmo import PrimaryOperator
from voltier.agents.primary_rules import no_bids
from voltier.grid.errors import FederationError
from voltier.market.primary.formulation import BranchFlow
from voltier.market.primary.problem import PrimaryClearing, SetPoints, failed_clearing


class JudgingOperator(PrimaryOperator):
    """Puts the areas' set-points through a power flow, sends them on with the prices, and settles on meters.

    What needs bids is nan in its tables: they never leave their areas. It expects agents to deliver what was agreed,
    and takes the set-points for the load. Limits count as kept within slack_pu.
    """

    slack_pu: float = 1e-3
    _formulation: BranchFlow
    _heard: Sequence[AreaClearing] = ()

    def _offers(self, t_s: int, bodies: Sequence[Message]) -> SmoBids:
        self._heard = [body for body in bodies if isinstance(body, AreaClearing)]
        meters = [body for body in bodies if isinstance(body, AreaMeters)]
        everybody = np.arange(len(self._has_generator))
        smo = np.concatenate([part.smo for part in meters]) if meters else everybody[:0]
        order = np.argsort(smo, kind="stable")
        if not np.array_equal(smo[order], everybody):
            raise FederationError(
                f"primary market: meters of {len(smo)} SMOs arrived from areas, {len(everybody)} take part"
            )
        known = {
            name: np.concatenate([getattr(part, name) for part in meters])[order]
            for name in AreaMeters.__struct_fields__
            if name not in ("t_s", "version")
        }
        unknown = no_bids(everybody, t_s)
        fields = {name: getattr(unknown, name) for name in SmoBids.__struct_fields__} | known
        return SmoBids(**fields)

    def _clear(self, t_s: int, bids: SmoBids, outbox: Outbox) -> PrimaryClearing:
        parts = [part for part in self._heard if part.t_s == t_s]
        failure = next((part.failure for part in parts if part.failure), "")
        n_node = self._formulation.n_node
        if failure:
            note = f"areas did not agree: {failure}"
            if "not agreed" in failure:
                # Areas have no relaxed limits to fall back on.
                note += "; if no dispatch keeps all limits, primary.solver=central with primary.transport=local relaxes"
            return failed_clearing(len(bids.smo), n_node, note, 0.0)
        clearing = self._formulation.judge(
            _joined(parts, len(bids.smo), n_node), self.slack_pu, tap=self._tap
        )
        return replace(clearing, iterations=max(part.rounds for part in parts))

    def _load_kw(self, bids: SmoBids, clearing: PrimaryClearing) -> float:
        return float(-clearing.p_kw.sum())

    def _expected_miss_kw(self, bids: SmoBids, clearing: PrimaryClearing) -> float:
        return 0.0

    def _learn_delivery(self, period: object, bids: SmoBids) -> None:
        """Learn nothing: what was asked beyond the forecasts is not known here."""


def _joined(parts: Sequence[AreaClearing], n_smo: int, n_node: int) -> SetPoints:
    """Join what the areas say. Raises FederationError for an operator or a node that none of them speaks of."""
    by_smo, by_node = np.full((3, n_smo), np.nan), np.full((2, n_node), np.nan)
    for part in parts:
        by_smo[:, part.smo] = part.p_kw, part.q_kvar, part.gen_kw
        by_node[:, part.node] = part.dlmp_p_usd_per_kwh, part.dlmp_q_usd_per_kvarh
    for what, values in (("SMO", by_smo), ("node", by_node)):
        silent = np.flatnonzero(np.isnan(values).any(axis=0))
        if len(silent):
            raise FederationError(f"no area cleared {what} {silent[0]} (and {len(silent) - 1} more)")
    return SetPoints(*by_smo, *by_node)
