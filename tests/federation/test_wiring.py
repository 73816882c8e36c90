"""Routes, units and mail sorting: what both loops share."""

import helics as h
import numpy as np
import pytest

from voltier.agents.messages import Attack, Conditions, Injections, Measurement, SmaMeters, SmoBids, Taps
from voltier.agents.operator import Mail, Rows
from voltier.federates.codec import decode_rows, encode_rows
from voltier.federates.mailbox import Inbox, as_received, rows_as_received, split_post
from voltier.federates.wiring import ROUTES, Wiring, values_of, wire_time
from voltier.grid.errors import FederationError

NAMES = ["wholesale", "resilience", "smo.0", "smo.1", "pmo", "cmo.0", "cmo.1", "grid"]
WIRING = Wiring(NAMES)


def conditions(price: float = 0.1) -> Conditions:
    return Conditions(t_s=0, price_usd_per_kwh=price, temp_air_c=20.0, pv_available=0.5)


def meters(p_kw: list[float]) -> SmaMeters:
    n = len(p_kw)
    return SmaMeters(t_s=0, sma=np.arange(n), p_kw=np.array(p_kw), q_kvar=np.zeros(n), anomaly=np.zeros(n))


def test_published_fields_carry_units() -> None:
    units = {
        value.field: value.unit
        for body in (Conditions, Injections, Measurement, Taps)
        for value in values_of(body)
    }
    assert units == {
        "price_usd_per_kwh": "$/kWh",
        "temp_air_c": "degC",
        "pv_available": "",
        "bus": "",
        "phase": "",
        "p_kw": "kW",
        "q_kvar": "kvar",
        "p_cc_kw": "kW",
        "q_cc_kvar": "kvar",
        "tap": "",
    }


def test_helics_knows_every_unit() -> None:
    """A unit that HELICS does not know is a name to it, and would be taken for any other."""
    broker = h.helicsCreateBroker("inproc", "units", "-f1 --loglevel=error")
    info = h.helicsCreateFederateInfo()
    h.helicsFederateInfoSetCoreTypeFromString(info, "inproc")
    h.helicsFederateInfoSetCoreInitString(info, "--federates=1 --broker=units --loglevel=error")
    federate = h.helicsCreateValueFederate("units", info)
    inputs = []
    for unit, larger in (("kW", "MW"), ("kvar", "MVAR"), ("$/kWh", "$/MWh"), ("s", "ms"), ("degC", "K")):
        publication = h.helicsFederateRegisterGlobalPublication(
            federate, unit, h.HELICS_DATA_TYPE_DOUBLE, unit
        )
        inputs.append((publication, h.helicsFederateRegisterSubscription(federate, unit, larger)))
    h.helicsFederateEnterExecutingMode(federate)
    for publication, _ in inputs:
        h.helicsPublicationPublishDouble(publication, 1000.0)
    h.helicsFederateRequestTime(federate, 1.0)
    found = [h.helicsInputGetDouble(source) for _, source in inputs]
    h.helicsFederateDisconnect(federate)
    h.helicsFederateFree(federate)
    h.helicsBrokerDisconnect(broker)
    # Conversions of one operation: a few units in the last place.
    np.testing.assert_allclose(found, [1.0, 1.0, 1e6, 1e6, 1273.15], rtol=1e-12)


def test_operators_that_write_to_each_other_never_act_at_the_same_wire_time() -> None:
    # Areas number their packets: it makes no difference in which slot one is seen.
    for route in (route for route in ROUTES if route.sender != route.receiver):
        for now_s in (0, 1, 2, 3, 4, 5):
            assert wire_time(route.sender, now_s) != wire_time(route.receiver, now_s) or _offsets_differ(
                route
            )


def test_an_attack_reaches_the_operators_before_they_act_in_its_minute() -> None:
    for minute_s in (0, 60, 300):
        assert (
            wire_time("grid", minute_s - 56)
            < wire_time("resilience", minute_s)
            < wire_time("smo.0", minute_s)
        )


def _offsets_differ(route: object) -> bool:
    offset = {
        "wholesale": {0},
        "resilience": {0},
        "smo": {0, 2},
        "area": {0.6},
        "pmo": {1},
        "cmo": {3},
        "grid": {4},
        "bulk": {5},
    }
    return not offset[route.sender] & offset[route.receiver]


@pytest.mark.parametrize(
    ("mail", "text"),
    [
        ([Mail("cmo.0", "pmo", meters([1.0]))], "cmo.0 sends SmaMeters to pmo, but there is no such route"),
        ([Mail("cmo.0", "smo.7", meters([1.0]))], "smo.7, which takes no part in this run"),
        ([Mail("smo.0", "smo.0", meters([1.0]))], "cmo.0 sends mail in the name of smo.0"),
    ],
)
def test_mail_without_a_route_is_refused(mail: list[Mail], text: str) -> None:
    with pytest.raises(FederationError, match=text):
        split_post(WIRING, "cmo.0", mail)


def test_a_state_must_be_one_and_the_same_for_all_its_readers() -> None:
    same = conditions()
    readers = ["pmo", "cmo.0", "cmo.1"]
    messages, states = split_post(WIRING, "wholesale", [Mail("wholesale", to, same) for to in readers])
    assert (messages, states) == ([], {Conditions: same})
    with pytest.raises(FederationError, match=r"must post Conditions once to each of pmo, cmo\.0, cmo\.1"):
        split_post(WIRING, "wholesale", [Mail("wholesale", "pmo", same)])
    with pytest.raises(FederationError, match="different content"):
        split_post(WIRING, "wholesale", [Mail("wholesale", to, conditions()) for to in readers])


def test_an_inbox_keeps_all_messages_and_the_newest_state_in_order() -> None:
    inbox = Inbox()
    inbox.put(
        60.0, Mail("resilience", "smo.0", Attack(t_s=1, smo=np.array([1]), active=True)), newest_only=False
    )
    inbox.put(3.0, Mail("cmo.0", "smo.0", meters([2.0])), newest_only=False)
    inbox.put(63.0, Mail("cmo.0", "smo.0", meters([3.0])), newest_only=False)
    for price in (0.1, 0.2):
        inbox.put(60 * price, Mail("wholesale", "smo.0", conditions(price)), newest_only=True)
    mail = inbox.take()
    assert [item.sender for item in mail] == ["cmo.0", "cmo.0", "resilience", "wholesale"]
    assert [item.body.p_kw[0] for item in mail[:2]] == [2.0, 3.0]
    assert mail[3].body.price_usd_per_kwh == 0.2
    assert inbox.take() == []


def test_what_is_received_is_a_copy_in_the_types_of_the_wire() -> None:
    sent = SmaMeters(
        t_s=0, sma=np.array([0], dtype=np.int32), p_kw=np.array([1]), q_kvar=np.zeros(1), anomaly=np.zeros(1)
    )
    received = as_received(sent)
    sent.p_kw[0] = 7
    assert received.p_kw.tolist() == [1.0]
    assert (received.p_kw.dtype, received.sma.dtype) == (np.float64, np.int64)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(FederationError, match=r"SmaMeters\.p_kw at 0 s holds a number that is not finite"):
        as_received(meters([1.0, bad]))
    with pytest.raises(FederationError, match=r"Conditions\.price_usd_per_kwh"):
        as_received(conditions(bad))


def test_rows_travel_whole() -> None:
    columns = {
        "p_kw": np.array([0.1, np.nan, -np.inf, 5e-324]),
        "position": np.array([3, 1, 2, 0]),
        "kind": ["a", "b", "c", "ü"],
        "gap": [1.5, 2.5, 3.5, 4.5],
    }
    (back,) = decode_rows(encode_rows([Rows("events", -60, columns)]))
    copied = rows_as_received(Rows("events", -60, columns))
    for rows in (back, copied):
        assert (rows.table, rows.t_s, list(rows.columns)) == ("events", -60, list(columns))
        for name, values in columns.items():
            np.testing.assert_array_equal(rows.columns[name], values)
    assert back.columns["position"].dtype == np.int64


def test_every_bid_reaches_the_wire() -> None:
    """A field that is added to a message is found by its annotation, never by a list to keep up to date."""
    assert len(values_of(SmoBids)) == len(SmoBids.__struct_fields__) - 2
