"""A secondary operator from elsewhere, over plain HELICS: it bids the same all the time, and has one fault."""

import json
import os
import socket
import sys
import time
from pathlib import Path

import helics as h

N_SMO, N_SMA, PRIMARY_S = 6, 18, 300
VALUES = (("bus", ""), ("phase", ""), ("p_kw", "kW"), ("q_kvar", "kvar"), ("t_s", "s"))
BID = [
    *("p0_kw", "p_min_kw", "p_max_kw", "beta_p_usd_per_kw2h", "q0_kvar", "q_min_kvar", "q_max_kvar"),
    *("beta_q_usd_per_kvar2h", "gen_max_kw", "alpha_usd_per_kw2h", "resilience_score"),
    *("p_meter_kw", "q_meter_kvar", "gen_meter_kw"),
]
SCHEDULE = ["p_kw", "q_kvar", "dp_kw", "dq_kvar", "tariff_usd_per_kwh", "tariff_q_usd_per_kvarh"]


def join(invitation: dict, fault: str) -> tuple:
    """Register everything, but for the fault."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    key = "wrong" if fault == "wrong key" else invitation["key"]
    info = h.helicsCreateFederateInfo()
    h.helicsFederateInfoSetCoreTypeFromString(info, invitation["transport"])
    h.helicsFederateInfoSetCoreName(info, f"lab{os.getpid()}")
    address = f"--broker_address={invitation['broker']} --brokerkey={key}"
    local = f"--localinterface=tcp://127.0.0.1 --localport={port}"
    h.helicsFederateInfoSetCoreInitString(info, f"--federates=1 {address} {local} --networktimeout=10s")
    h.helicsFederateInfoSetFlagOption(info, h.HELICS_FLAG_UNINTERRUPTIBLE, True)
    h.helicsFederateInfoSetFlagOption(info, h.HELICS_FLAG_TERMINATE_ON_ERROR, True)
    federate = h.helicsCreateCombinationFederate(f"lab{os.getpid()}", info)
    to = {}
    for other in ("pmo", "cmo.0"):
        if fault == "missing topic" and other == "cmo.0":
            continue
        to[other] = h.helicsFederateRegisterGlobalTargetedEndpoint(federate, f"smo.0/to/{other}", "")
        h.helicsEndpointAddDestinationTarget(to[other], f"{other}/from/smo.0")
    for other in ("pmo", "cmo.0", "wholesale", "resilience"):
        h.helicsFederateRegisterGlobalTargetedEndpoint(federate, f"smo.0/from/{other}", "")
    for field, unit in VALUES:
        wrong_unit = fault == "wrong unit" and field == "p_kw"
        wrong_type = fault == "wrong type" and field == "p_kw"
        kind = h.HELICS_DATA_TYPE_STRING if wrong_type else h.HELICS_DATA_TYPE_VECTOR
        name = f"smo.0/Injections/{field}"
        h.helicsFederateRegisterGlobalPublication(federate, name, kind, "MW" if wrong_unit else unit)
    if fault == "strange topic":
        h.helicsFederateRegisterSubscription(federate, "wholesale/Conditions/price", "$/kWh")
    return federate, to


def times(end_s: int, fault: str) -> list[float]:
    """Return the HELICS times at which it acts."""
    if fault == "wrong period":
        return [60.0 + 300.0 * k for k in range(end_s // 300)]
    if fault == "wrong offset":
        return [61.0 + 60.0 * k for k in range(end_s // 60)]
    found = []
    for minute in range(0, end_s, 60):
        found += [60.0 + minute] + ([62.0 + minute] if minute % PRIMARY_S == 0 else [])
    return [*found, 60.0 + end_s]


def bids(t_s: int, fault: str) -> bytes:
    """Return the bids of all operators."""
    columns = {name: [1.0] * N_SMO for name in BID}
    columns |= {"p0_kw": [-5.0] * N_SMO, "p_min_kw": [-6.0] * N_SMO, "p_max_kw": [-4.0] * N_SMO}
    if fault == "out of range":
        columns["p0_kw"][3] = -7.0
    if fault == "not finite":
        columns["p0_kw"][3] = float("nan")
    if fault == "text":
        columns["p0_kw"][3] = "five"
    smo = list(range(N_SMO + (fault == "strange rows")))
    columns |= {name: [[1.0] * 3] * N_SMO for name in ("p0_phase_kw", "q0_phase_kvar")}
    if fault == "strange rows":
        columns = {name: [*values, values[0]] for name, values in columns.items()}
    return json.dumps({"type": "SmoBids", "t_s": t_s, "version": 1, "smo": smo, **columns}).encode()


def main(path: str, fault: str) -> None:
    """Join, act, leave."""
    invitation = json.loads(Path(path).read_text(encoding="utf-8"))
    if fault == "late":
        time.sleep(1.0)
    federate, to = join(invitation, fault)
    if fault == "never ready":
        time.sleep(60.0)
    h.helicsFederateEnterExecutingMode(federate)
    if fault == "silent":
        time.sleep(60.0)
    for time_s in times(invitation["end_s"], fault):
        h.helicsFederateRequestTime(federate, time_s)
        now_s = round(time_s) - 60
        t_s = now_s // 60 * 60
        if t_s >= 360 and fault == "killed":
            os.kill(os.getpid(), 9)
        if t_s >= 360 and fault == "leaves":
            break
        if now_s % PRIMARY_S == 0:
            data = b" " * 5_000_000 if fault == "oversized" else bids(t_s, fault)
            h.helicsEndpointSendBytes(to["pmo"], data)
        else:
            columns = {name: [0.1] * N_SMA for name in SCHEDULE}
            schedule = {"type": "SmaSchedule", "t_s": t_s, "version": 1, "sma": list(range(N_SMA)), **columns}
            h.helicsEndpointSendBytes(to["cmo.0"], json.dumps(schedule).encode())
    h.helicsFederateDisconnect(federate)
    h.helicsCloseLibrary()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
