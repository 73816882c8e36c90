"""The attacker of a scenario: it switches primary-level generators off, and lets them go again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from voltier.agents.messages import Attack, Index
from voltier.agents.operator import Mail, Outbox, Rows


@dataclass(frozen=True, slots=True)
class GeneratorAttack:
    """Disruption of primary-level generators from start_s until end_s (None: to the end of the run).

    smo : (n,) positions of the SMOs whose generators fall to zero output.
    """

    smo: Index
    start_s: int
    end_s: int | None


class Attacker:
    """Sends the attack's commands to the devices at the planned minutes; without an attack it does nothing."""

    def __init__(self, attack: GeneratorAttack | None, smo_names: tuple[str, ...], shards: int) -> None:
        self._attack, self._smo_names = attack, smo_names
        self._victims = [f"smo.{k}" for k in range(shards)]

    def act(self, now_s: int) -> Outbox:
        """Return the commands that are due at now_s."""
        outbox = Outbox()
        if self._attack is None:
            return outbox
        for at_s, active in ((self._attack.start_s, True), (self._attack.end_s, False)):
            if at_s == now_s:
                command = Attack(t_s=now_s, smo=np.asarray(self._attack.smo), active=active)
                outbox.mail += [Mail("resilience", victim, command) for victim in self._victims]
                names = ", ".join(self._smo_names[i] for i in self._attack.smo)
                text = f"generators at {names} " + ("fall to zero output" if active else "are released")
                kind = "attack" if active else "attack-over"
                outbox.rows.append(
                    Rows("events", now_s, {"source": ["attacker"], "kind": [kind], "text": [text]})
                )
        return outbox
