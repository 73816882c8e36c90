"""A grid in plain Python and HELICS: the whole feeder as one line for each phase. Nothing here comes from voltier.

voltier run ieee123-hour --hours 0.25 --external grid --out RUN
python docs/foreign_grid.py RUN/external/grid.json
"""

import json
import os
import socket
import sys
from pathlib import Path

import helics as h

# Our assumption of the line from the substation to all load: 2 + 5j % on 1,667 kVA a phase.
BASE_KVA, Z_PU = 1667.0, 0.02 + 0.05j


def join(invitation: dict) -> tuple:
    """Register every topic of the invitation as one federate; return it, its endpoints, publications and inputs."""
    with socket.socket() as probe:  # a port of our own, not one that HELICS guesses beside the broker's
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    info = h.helicsCreateFederateInfo()
    h.helicsFederateInfoSetCoreTypeFromString(info, invitation["transport"])
    h.helicsFederateInfoSetCoreInitString(
        info,
        f"--federates=1 --broker_address={invitation['broker']} --brokerkey={invitation['key']} --localport={port}",
    )
    h.helicsFederateInfoSetFlagOption(info, h.HELICS_FLAG_UNINTERRUPTIBLE, True)
    h.helicsFederateInfoSetFlagOption(info, h.HELICS_FLAG_TERMINATE_ON_ERROR, True)
    federate = h.helicsCreateCombinationFederate(f"{invitation['role']}-{os.getpid()}", info)
    topics, to, publish, read = invitation["topics"], {}, {}, {}
    for topic in (*topics["writes"], topics["rows_to"]):
        to[topic["name"]] = h.helicsFederateRegisterGlobalTargetedEndpoint(federate, topic["name"], "")
        h.helicsEndpointAddDestinationTarget(to[topic["name"]], topic["partner"])
    for topic in topics["publications"]:
        kind = h.HELICS_DATA_TYPE_VECTOR if topic["type"] == "vector" else h.HELICS_DATA_TYPE_DOUBLE
        publish[topic["name"]] = h.helicsFederateRegisterGlobalPublication(
            federate, topic["name"], kind, topic["unit"]
        )
    for topic in topics["subscriptions"]:
        read[topic["name"]] = h.helicsFederateRegisterSubscription(federate, topic["name"], topic["unit"])
    return federate, to, publish, read


def flow(s_kva: complex) -> tuple[float, complex]:
    """Return (voltage [p.u.], power that the line takes in [kVA]) of a phase whose far end injects s_kva."""
    v = 1.0 + 0.0j
    for _ in range(50):
        v = 1.0 + Z_PU * (s_kva / BASE_KVA / v).conjugate()  # converges at this load in about ten rounds
    current = (s_kva / BASE_KVA / v).conjugate()
    return abs(v), s_kva - Z_PU * abs(current) ** 2 * BASE_KVA


def collect(read: dict) -> dict[tuple[int, int], complex]:
    """Return the injection [kVA] at each (bus, phase) that anybody published since the last time."""
    injected = {}
    senders = {name.rpartition("/")[0] for name in read}
    for sender in senders:
        if not h.helicsInputIsUpdated(read[f"{sender}/t_s"]):
            continue
        columns = [
            h.helicsInputGetVector(read[f"{sender}/{field}"]) for field in ("bus", "phase", "p_kw", "q_kvar")
        ]
        for bus, phase, p_kw, q_kvar in zip(*columns, strict=True):
            at = int(bus), int(phase)
            injected[at] = injected.get(at, 0j) + complex(p_kw, q_kvar)
    return injected


def main(path: str) -> None:
    """Join, act each minute, leave."""
    invitation = json.loads(Path(path).read_text(encoding="utf-8"))
    nodes = [tuple(node) for node in invitation["facts"]["node"]]
    taps = invitation["facts"]["tap"]
    federate, to, publish, read = join(invitation)
    h.helicsFederateEnterExecutingMode(federate)
    for t_s in range(0, invitation["end_s"], 60):
        time_s = t_s + 64.0  # four seconds into the minute, after everybody else
        h.helicsFederateRequestTime(federate, time_s)
        injected = collect(read)
        s_kva = [sum(s for (_, phase), s in injected.items() if phase == k) for k in range(3)]
        flows = [flow(s) for s in s_kva]
        p_cc, q_cc = [s.real for _, s in flows], [s.imag for _, s in flows]
        measurement = {"type": "Measurement", "version": 1, "t_s": t_s, "p_cc_kw": p_cc, "q_cc_kvar": q_cc}
        h.helicsEndpointSendBytes(to["grid/to/pmo"], json.dumps(measurement).encode())
        values = {"Measurement/p_cc_kw": p_cc, "Measurement/q_cc_kvar": q_cc, "Taps/tap": taps}
        values |= {"Measurement/t_s": [t_s, time_s], "Taps/t_s": [t_s, time_s]}
        for name, content in values.items():
            h.helicsPublicationPublishVector(publish[f"grid/{name}"], content)
        loss = [s.real - p for s, p in zip(map(complex, s_kva), p_cc, strict=True)]
        substation = {"p_kw": p_cc, "q_kvar": q_cc, "loss_kw": loss, "balance_error_kw": [0.0] * 3}
        at = [injected.get(node, 0j) for node in nodes]
        grid = {"v_pu": [flows[phase][0] for _, phase in nodes]}
        grid |= {"p_kw": [s.real for s in at], "q_kvar": [s.imag for s in at]}
        rows = [
            {"table": name, "t_s": t_s, "columns": c}
            for name, c in (("substation", substation), ("grid", grid))
        ]
        h.helicsEndpointSendBytes(to["grid/to/recorder"], json.dumps(rows).encode())
    h.helicsFederateDisconnect(federate)
    h.helicsCloseLibrary()


if __name__ == "__main__":
    main(sys.argv[1])
