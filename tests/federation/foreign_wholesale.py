"""A wholesale market from elsewhere, over plain HELICS; its prices are in $/MWh, or it is mute."""

import socket
import sys
import time

import helics as h


def main(broker: str, key: str, *mute: str) -> None:
    """Join, publish, and stay as long as the federation does."""
    info = h.helicsCreateFederateInfo()
    h.helicsFederateInfoSetCoreTypeFromString(info, "zmq")
    options = f"--federates=2 --broker_address={broker} --brokerkey={key} --localinterface=tcp://127.0.0.1"
    with socket.socket() as probe:  # else HELICS takes a port beside the broker's, which another run may have
        probe.bind(("127.0.0.1", 0))
        options += f" --networktimeout=30s --localport={probe.getsockname()[1]}"
    h.helicsFederateInfoSetCoreName(info, "foreign")
    h.helicsFederateInfoSetCoreInitString(info, options)
    ear = h.helicsCreateCombinationFederate("wholesale", info)
    mouth = h.helicsCreateCombinationFederate("wholesale.out", info)
    if not mute:
        scalar, vector = h.HELICS_DATA_TYPE_DOUBLE, h.HELICS_DATA_TYPE_VECTOR
        for field, kind, unit in (
            ("price_usd_per_kwh", scalar, "$/MWh"),
            ("temp_air_c", scalar, "degC"),
            ("pv_available", scalar, ""),
            ("t_s", vector, "s"),
        ):
            h.helicsFederateRegisterGlobalPublication(mouth, f"wholesale/Conditions/{field}", kind, unit)
        for other in ("pmo", "smo.0", "cmo.0", "resilience", "recorder"):
            endpoint = h.helicsFederateRegisterGlobalTargetedEndpoint(mouth, f"wholesale/to/{other}", "")
            h.helicsEndpointAddDestinationTarget(endpoint, f"{other}/from/wholesale")
        h.helicsFederateRegisterGlobalTargetedEndpoint(ear, "wholesale/from/recorder", "")
    h.helicsFederateEnterInitializingModeAsync(ear)
    h.helicsFederateEnterInitializingMode(mouth)
    h.helicsFederateEnterInitializingModeComplete(ear)
    time.sleep(60.0)


if __name__ == "__main__":
    main(*sys.argv[1:])
