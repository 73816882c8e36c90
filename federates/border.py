"""What is checked of mail from outside before anybody of ours acts on it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from voltier.agents.clock import MINUTE_S
from voltier.agents.messages import SCHEMA_VERSION, Array, Index, Message, SmaBids, decode
from voltier.federates.mailbox import check_finite
from voltier.federates.part import ExternalPart
from voltier.grid.errors import FederationError

MOST_BYTES = 4_000_000
"""Longest message that is taken from outside; the longest of ours has some 100 kB."""

_BOXES = (("p_min_kw", "p0_kw", "p_max_kw"), ("q_min_kvar", "q0_kvar", "q_max_kvar"))
# Sums of boxes over agents keep some 13 digits.
_BOX_SLACK = 1e-6
# No feeder carries a gigawatt, and no price is a thousand dollars a kWh: such numbers are in another unit.
_LARGEST = {"_kw": 1e6, "_kvar": 1e6, "_usd_per_kwh": 1e3, "_usd_per_kvarh": 1e3}
_POSITIVE = ("alpha_", "beta_")
_SHARES = ("resilience_score", "anomaly", "pv_available")
_WHOLE = ("SmoBids", "SmaSchedule", "SmaBids", "PrimarySchedule")


def read_message(sender: str, data: bytes) -> Message:
    """Return the message in bytes of JSON. Raises FederationError, naming sender and field, if there is none."""
    try:
        body = decode(data)
    except msgspec.DecodeError as error:
        kind = _kind(data)
        if b"NaN" in data or b"Infinity" in data:
            raise FederationError(
                f"{sender} sent {kind} with a number that is not finite, which JSON cannot carry"
            ) from error
        raise FederationError(f"{sender} sent {kind} that cannot be read: {error}") from error
    if body.version != SCHEMA_VERSION:
        raise FederationError(
            f"{sender} speaks message version {body.version}, this side version {SCHEMA_VERSION}"
        )
    return body


def check_body(body: Message, receiver: str, now_s: int, part: ExternalPart) -> str | None:
    """Say what is wrong with a message for a receiver at simulated second now_s; None if nothing is."""
    kind = type(body).__name__
    try:
        check_finite(body)
    except FederationError as error:
        return str(error)
    minute_s = now_s // MINUTE_S * MINUTE_S
    if abs(body.t_s - minute_s) > MINUTE_S:
        return f"{kind}.t_s is {body.t_s} s in the minute that begins at {minute_s} s"
    fields = {name: getattr(body, name) for name in body.__struct_fields__ if name not in ("t_s", "version")}
    problem = next(_of_lengths(body, fields), None)
    if problem is None:
        problem = next(_of_rows(kind, receiver, fields, part), None) or next(_of_range(fields), None)
    return None if problem is None else f"{kind}.{problem}"


def _of_lengths(body: Message, fields: Mapping[str, Any]) -> Iterator[str]:
    """Find columns that are longer or shorter than the index of their rows."""
    types = {item.name: item.type for item in msgspec.structs.fields(type(body))}
    arrays = {name: values for name, values in fields.items() if types[name] in (Array, Index)}
    first = next((name for name in arrays if types[name] == Index), next(iter(arrays), ""))
    for name, values in arrays.items():
        if "_phase_" in name:
            if values.ndim != 2 or values.shape[1] != 3:
                yield f"{name} has shape {values.shape}, expected a row of three phases each"
            if isinstance(body, SmaBids):
                continue  # a row for each SMO, not for each agent
        elif values.ndim != 1:
            yield f"{name} has shape {values.shape}, expected one row of numbers"
        if len(values) != len(arrays[first]):
            yield f"{name} has {len(values)} rows, {first} has {len(arrays[first])}"


def _of_rows(kind: str, receiver: str, fields: Mapping[str, Any], part: ExternalPart) -> Iterator[str]:
    """Find rows that are not those the sender speaks for."""
    known = part.rows.get(f"{kind}>{receiver}")
    if known is not None and kind in _WHOLE:
        index = "smo" if "smo" in fields else "sma"
        if fields[index].tolist() != list(known):
            yield f"{index} is {_few(fields[index].tolist())}, expected {_few(known)}"
    elif known is not None and kind == "SmaMeters":
        # Readings may be missing, but each must be of an agent that is known, once.
        sma = fields["sma"]
        if not np.isin(sma, known).all() or len(np.unique(sma)) < len(sma):
            yield f"sma is {_few(sma.tolist())}, expected some of {_few(known)}, each once"
    if kind == "SmaBids" and part.n_smo is not None:
        for name in ("p0_phase_kw", "q0_phase_kvar"):
            if len(fields[name]) != part.n_smo:
                yield f"{name} has {len(fields[name])} rows, expected {part.n_smo}, one for each SMO"
    if kind == "Injections":
        limits = {"phase": 3, **({"bus": part.n_bus} if part.n_bus else {})}
        for name, n in limits.items():
            outside = (fields[name] < 0) | (fields[name] >= n)
            if outside.any():
                yield f"{name} holds {fields[name][outside][0]}, expected 0 to {n - 1}"


def _of_range(fields: Mapping[str, Any]) -> Iterator[str]:
    """Find numbers beyond what their names allow; the first row of each is named."""
    for name, values in fields.items():
        numbers = np.atleast_1d(np.asarray(values))
        limit = next((most for suffix, most in _LARGEST.items() if name.endswith(suffix)), None)
        if limit is not None:
            yield from _first(name, numbers, np.abs(numbers) > limit, f"expected -{limit:g} to {limit:g}")
        if name.startswith(_POSITIVE):
            yield from _first(name, numbers, numbers <= 0.0, "expected more than 0")
        if name in _SHARES:
            yield from _first(name, numbers, (numbers < 0.0) | (numbers > 1.0), "expected 0 to 1")
    for low, middle, high in _BOXES:
        if middle in fields and low in fields:
            p0, least, most = fields[middle], fields[low], fields[high]
            slack = _BOX_SLACK * np.maximum(1.0, np.abs(p0))
            yield from _first(middle, p0, p0 < least - slack, f"expected no less than {low}")
            yield from _first(middle, p0, p0 > most + slack, f"expected no more than {high}")


def _first(name: str, values: np.ndarray, wrong: np.ndarray, remedy: str) -> Iterator[str]:
    if wrong.any():
        at = int(np.argmax(wrong.reshape(-1)))
        yield f"{name} is {values.reshape(-1)[at]:g} in row {at}, {remedy}"


def _kind(data: bytes) -> str:
    named = re.search(rb'"type"\s*:\s*"(\w+)"', data[:10_000])  # what JSON cannot carry has no decoder
    return named[1].decode() if named else "a message"


def _few(values: Sequence[int]) -> str:
    shown = ", ".join(str(value) for value in list(values)[:4])
    return f"[{shown}{', ...' if len(values) > 4 else ''}] ({len(values)} rows)"
