"""A secondary market operator in plain Python and HELICS; nothing here comes from voltier.

voltier run ieee123-hour --hours 0.25 --external smo.0 --out RUN
python docs/foreign_smo.py RUN/external/smo.0.json
"""

import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import helics as h


def join(invitation: dict) -> tuple:
    """Register every topic of the invitation as one federate; return it and its endpoints and publications."""
    with socket.socket() as probe:  # a port of our own, not one that HELICS guesses beside the broker's
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    info = h.helicsCreateFederateInfo()
    h.helicsFederateInfoSetCoreTypeFromString(info, invitation["transport"])
    h.helicsFederateInfoSetCoreInitString(
        info,
        f"--federates=1 --broker_address={invitation['broker']} --brokerkey={invitation['key']} --localport={port}",
    )
    h.helicsFederateInfoSetFlagOption(
        info, h.HELICS_FLAG_UNINTERRUPTIBLE, True
    )  # only at the times we ask for
    h.helicsFederateInfoSetFlagOption(info, h.HELICS_FLAG_TERMINATE_ON_ERROR, True)
    federate = h.helicsCreateCombinationFederate(f"{invitation['role']}-{os.getpid()}", info)
    topics, to, read, publish = invitation["topics"], {}, {}, {}
    for topic in topics["writes"]:
        to[topic["name"]] = h.helicsFederateRegisterGlobalTargetedEndpoint(federate, topic["name"], "")
        h.helicsEndpointAddDestinationTarget(to[topic["name"]], topic["partner"])
    for topic in topics["reads"]:
        read[topic["name"]] = h.helicsFederateRegisterGlobalTargetedEndpoint(federate, topic["name"], "")
    for topic in topics["publications"]:
        kind = h.HELICS_DATA_TYPE_VECTOR if topic["type"] == "vector" else h.HELICS_DATA_TYPE_DOUBLE
        publish[topic["name"]] = h.helicsFederateRegisterGlobalPublication(
            federate, topic["name"], kind, topic["unit"]
        )
    return federate, to, read, publish


def instants(invitation: dict) -> Iterator[int]:
    """Yield the simulated seconds at which an operator acts; HELICS is 60 s ahead of them."""
    for minute_s in range(0, invitation["end_s"], 60):
        yield minute_s
        if minute_s % invitation["primary_period_s"] == 0:
            yield minute_s + 2  # set-points have come
    yield invitation["end_s"]  # the last meters, for settlement


class Operator:
    """The operators of one shard: they add their agents' bids, and spread their set-points over them."""

    def __init__(self, facts: dict) -> None:
        self.smo, self.sma = facts["smo"], facts["sma"]
        rows = {row["sma"]: i for i, row in enumerate(self.sma)}
        self.agents = [[rows[a["sma"]] for a in self.sma if a["smo"] == o["smo"]] for o in self.smo]
        self.bids, self.setpoints, self.attacked = None, None, set()
        self.reading = [[0.0, 0.0] for _ in self.sma]
        self.metered, self.minutes = [[0.0, 0.0, 0.0] for _ in self.smo], 0
        self.gen_kw = [0.0] * len(self.smo)

    def hear(self, body: dict) -> None:
        """Take in one message."""
        if body["type"] == "SmaBids":
            self.bids = body
        elif body["type"] == "PrimarySchedule":
            self.setpoints = body
        elif body["type"] == "Attack":
            (self.attacked.update if body["active"] else self.attacked.difference_update)(body["smo"])
        elif body["type"] == "SmaMeters":
            first = self.sma[0]["sma"]
            for sma, p_kw, q_kvar in zip(body["sma"], body["p_kw"], body["q_kvar"], strict=True):
                self.reading[sma - first] = [p_kw, q_kvar]  # a reading that was lost leaves the last one
            for k, agents in enumerate(self.agents):
                self.metered[k][0] += sum(self.reading[a][0] for a in agents)
                self.metered[k][1] += sum(self.reading[a][1] for a in agents)
                self.metered[k][2] += self.gen_kw[k]
            self.minutes += 1

    def offer(self, t_s: int) -> dict:
        """Return the bids of each operator to the primary market: the sum of its agents' boxes."""

        def total(name: str) -> list[float]:
            return [sum(self.bids[name][a] for a in agents) for agents in self.agents]

        def joint(name: str) -> list[float]:  # disutilities in parallel
            return [1.0 / sum(1.0 / self.bids[name][a] for a in agents) for agents in self.agents]

        n = max(self.minutes, 1)
        p_meter, q_meter, gen_meter = ([each[i] / n for each in self.metered] for i in range(3))
        self.metered, self.minutes = [[0.0, 0.0, 0.0] for _ in self.smo], 0
        names = ("p0_kw", "p_min_kw", "p_max_kw", "q0_kvar", "q_min_kvar", "q_max_kvar")
        return {
            "type": "SmoBids",
            "version": 1,
            "t_s": t_s,
            "smo": [row["smo"] for row in self.smo],
            **{name: total(name) for name in names},
            "beta_p_usd_per_kw2h": joint("beta_p_usd_per_kw2h"),
            "beta_q_usd_per_kvar2h": joint("beta_q_usd_per_kvar2h"),
            "p0_phase_kw": self.bids["p0_phase_kw"],
            "q0_phase_kvar": self.bids["q0_phase_kvar"],
            "gen_max_kw": [row["gen_max_kw"] for row in self.smo],
            "alpha_usd_per_kw2h": [row["alpha_usd_per_kw2h"] for row in self.smo],
            "resilience_score": [1.0] * len(self.smo),
            "p_meter_kw": p_meter,
            "q_meter_kvar": q_meter,
            "gen_meter_kw": gen_meter,
        }

    def schedule(self, t_s: int) -> dict:
        """Return each agent's schedule and tariff: what the set-point asks, spread by the room each one has."""
        n, bids, given = len(self.sma), self.bids, self.setpoints
        p_kw, tariff, tariff_q = list(bids["p0_kw"]), [0.0] * n, [0.0] * n
        for k, agents in enumerate(self.agents):
            asked = given["p_kw"][k] - sum(p_kw[a] for a in agents)
            limit = bids["p_max_kw" if asked > 0 else "p_min_kw"]
            room = sum(abs(limit[a] - p_kw[a]) for a in agents)
            share = min(abs(asked) / room, 1.0) if room else 0.0
            for a in agents:
                p_kw[a] += share * (limit[a] - p_kw[a])
                tariff[a], tariff_q[a] = given["dlmp_p_usd_per_kwh"][k], given["dlmp_q_usd_per_kvarh"][k]
            self.gen_kw[k] = 0.0 if self.smo[k]["smo"] in self.attacked else given["gen_kw"][k]
        boxes = zip(p_kw, bids["p_min_kw"], bids["p_max_kw"], strict=True)
        return {
            "type": "SmaSchedule",
            "version": 1,
            "t_s": t_s,
            "sma": [row["sma"] for row in self.sma],
            "p_kw": p_kw,
            "q_kvar": bids["q0_kvar"],
            "dp_kw": [max(min(p - low, high - p), 0.0) for p, low, high in boxes],
            "dq_kvar": [0.0] * n,
            "tariff_usd_per_kwh": tariff,
            "tariff_q_usd_per_kvarh": tariff_q,
        }

    def injections(self) -> list[tuple[int, int, float]]:
        """Return (bus, phase, p_kw) of the operators' own generators."""
        return [
            (row["bus"], phase, kw / len(row["phases"]))
            for row, kw in zip(self.smo, self.gen_kw, strict=True)
            if row["gen_max_kw"] > 0
            for phase in row["phases"]
        ]


def main(path: str) -> None:
    """Join, act at each instant, leave."""
    invitation = json.loads(Path(path).read_text(encoding="utf-8"))
    role = invitation["role"]
    federate, to, read, publish = join(invitation)
    consumers = next(topic["name"] for topic in invitation["topics"]["writes"] if "/to/cmo" in topic["name"])
    operator = Operator(invitation["facts"])
    h.helicsFederateEnterExecutingMode(federate)
    for now_s in instants(invitation):
        h.helicsFederateRequestTime(federate, now_s + 60.0)
        heard = []
        for endpoint in read.values():
            while h.helicsEndpointHasMessage(endpoint):
                heard.append(json.loads(h.helicsMessageGetString(h.helicsEndpointGetMessage(endpoint))))
        for body in sorted(heard, key=lambda body: body["type"] != "SmaMeters"):
            operator.hear(body)  # meters first: they are about the minute just over
        t_s = now_s // 60 * 60
        if now_s % invitation["primary_period_s"] == 0:
            h.helicsEndpointSendBytes(to[f"{role}/to/pmo"], json.dumps(operator.offer(t_s)).encode())
            continue
        schedule = json.dumps(operator.schedule(t_s)).encode()
        h.helicsEndpointSendBytes(to[consumers], schedule)
        places = operator.injections()
        if places:
            values = {"bus": [b for b, _, _ in places], "phase": [f for _, f, _ in places]}
            values |= {"p_kw": [p for _, _, p in places], "q_kvar": [0.0] * len(places)}
            values["t_s"] = [t_s, now_s + 60.0]
            for field, content in values.items():
                h.helicsPublicationPublishVector(publish[f"{role}/Injections/{field}"], content)
    h.helicsFederateDisconnect(federate)
    h.helicsCloseLibrary()


if __name__ == "__main__":
    main(sys.argv[1])
