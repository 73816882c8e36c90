"""Messages survive the wire to the last bit and refuse what is not theirs."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voltier.agents.messages import Array, Index, Message, SmaMeters, decode, encode


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=20))
def test_floats_survive_the_wire_to_the_last_bit(values):
    p_kw = np.array(values, dtype=np.float64)
    sent = SmaMeters(
        t_s=60, sma=np.arange(len(values)), p_kw=p_kw, q_kvar=-p_kw, anomaly=np.zeros(len(values))
    )
    got = decode(encode(sent))
    assert isinstance(got, SmaMeters)
    assert got.sma.dtype == np.int64
    np.testing.assert_array_equal(got.p_kw, p_kw)


def test_every_message_has_a_wire_form():
    for kind in Message.__subclasses__():
        values = {}
        for field in msgspec.structs.fields(kind):
            if field.name in ("t_s", "version"):
                continue
            sample = (
                {Array: np.array([1.5]), Index: np.array([2])}.get(field.type)
                if field.type in (Array, Index)
                else None
            )
            values[field.name] = (
                sample if sample is not None else {float: 0.1, int: 3, bool: True, str: "none"}[field.type]
            )
        sent = kind(t_s=0, **values)
        assert type(decode(encode(sent))) is kind


@pytest.mark.parametrize(
    "wire",
    [
        b'{"type":"SmaMeters","t_s":0,"sma":[0],"p_kw":[1.0],"q_kvar":[0.0]}',
        b'{"type":"Alarm","t_s":"soon","active":true,"target_p_cc_kw":0.0,"shortfall_kw":0.0}',
        b'{"type":"Nonsense","t_s":0}',
        b"not json",
    ],
)
def test_malformed_messages_are_refused(wire):
    with pytest.raises(msgspec.DecodeError):
        decode(wire)


def test_what_has_no_wire_form_is_refused_when_sent():
    with pytest.raises(TypeError, match="JSON form"):
        encode(
            SmaMeters(
                t_s=0, sma=np.arange(1), p_kw={1, 2} and object(), q_kvar=np.zeros(1), anomaly=np.zeros(1)
            )
        )
