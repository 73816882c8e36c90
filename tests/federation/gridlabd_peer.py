"""A foreign federation around an exported GridLAB-D: broker and the market's side, in one process.

python gridlabd_peer.py helics.json: prints the options of the other core, publishes a load of 40 kW at every point,
and at the end prints the voltages it received.
"""

import json
import sys
from pathlib import Path

import helics

from voltier.federates.helics import Broker, Connection
from voltier.federates.wiring import LOOPBACK

topics = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
broker = Broker("zmq", 2, "exchange", interface=LOOPBACK)
options = Connection("zmq", broker.address, "exchange", LOOPBACK).core_options(1)
print(options, flush=True)
info = helics.helicsCreateFederateInfo()
helics.helicsFederateInfoSetCoreTypeFromString(info, "zmq")
own = Connection("zmq", broker.address, "exchange", LOOPBACK).core_options(1)
helics.helicsFederateInfoSetCoreInitString(info, own)
peer = helics.helicsCreateValueFederate("market", info)
# values that arrive must not wake it before its time
helics.helicsFederateSetFlagOption(peer, helics.HELICS_FLAG_UNINTERRUPTIBLE, True)
loads = [
    helics.helicsFederateRegisterGlobalPublication(
        peer, topic["key"], helics.HELICS_DATA_TYPE_COMPLEX, topic["unit"]
    )
    for topic in topics["subscriptions"]
]
voltages = {
    topic["key"]: helics.helicsFederateRegisterSubscription(peer, topic["key"], topic["unit"])
    for topic in topics["publications"]
}
helics.helicsFederateEnterExecutingMode(peer)
for load in loads:
    helics.helicsPublicationPublishComplex(load, 40e3 + 10e3j)
for t_s in (90.0, 450.0, 1000.0):
    helics.helicsFederateRequestTime(peer, t_s)
found = {key: complex(helics.helicsInputGetComplex(voltage)) for key, voltage in voltages.items()}
print(json.dumps({key: [value.real, value.imag] for key, value in found.items()}), flush=True)
helics.helicsFederateDisconnect(peer)
broker.close()
helics.helicsCloseLibrary()
