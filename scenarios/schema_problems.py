"""From what pydantic says to problems a user can mend: file and line, dotted field, value, remedy."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from voltier.grid.errors import Problem
from voltier.scenarios.schema_yaml import parse_value

Where = Mapping[str, str]
"""Dotted field → where it was written ("day.yaml:12", "--set"); "" → the scenario as a whole."""

_REMEDIES = {
    "missing": "this must be given",
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "multiple_of": "must be a multiple of {multiple_of:g}",
    "finite_number": "must be a finite number",
    "int_type": "must be a whole number, without quotes or unit",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number, without quotes or unit",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "datetime_type": "must be a date such as 2020-07-15, or 2020-07-15T17:00",
    "tuple_type": "must be a list",
    "model_type": "must be a section with keys of its own",
    "model_attributes_type": "must be a section with keys of its own",
    "too_short": "must have at least {min_length} entry",
    "literal_error": "must be one of {expected}",
    "string_too_short": "must not be empty",
}


def problems_of(error: ValidationError, model: type[BaseModel], where: Where) -> list[Problem]:
    """Turn each complaint of pydantic into a problem (several where a check reports several)."""
    problems: list[Problem] = []
    for complaint in error.errors(include_url=False):
        loc = [str(part) for part in complaint["loc"]]
        kind, context = complaint["type"], complaint.get("ctx", {})
        if kind == "extra_forbidden":
            remedy = _unknown_key(model, complaint["loc"])
            problems.append(_problem(where, loc, complaint["input"], remedy))
        elif kind == "value_error":
            problems += _own_check(where, loc, str(context["error"]))
        elif kind == "string_pattern_mismatch":
            problems.append(_problem(where, loc, complaint["input"], _pattern_remedy(loc)))
        else:
            remedy = _REMEDIES.get(kind, complaint["msg"]).format(**context)
            value = "nothing" if kind == "missing" else complaint["input"]
            problems.append(_problem(where, loc, value, remedy))
    return problems


def locate(where: Where, field: str) -> str:
    """Return where a dotted field was written, or else the nearest section above it."""
    while field not in where and field:
        field = field.rpartition(".")[0]
    return where[field]


def nearest(word: str, known: Sequence[str]) -> str:
    """Return ' (did you mean "x"?)' where one of the known words is close, else an empty text."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f' (did you mean "{close[0]}"?)' if close else ""


def _problem(where: Where, loc: Sequence[str], value: object, remedy: str) -> Problem:
    field = ".".join(loc)
    return Problem(locate(where, field), field, value, remedy)


def _own_check(where: Where, loc: Sequence[str], message: str) -> list[Problem]:
    """Checks over several fields either name them, "field|value|remedy" a line, or speak of their section."""
    if "|" not in message:
        field = ".".join(loc)
        return [Problem(locate(where, field), field or "scenario", "as given", message)]
    lines = (line.split("|", 2) for line in message.split("\n"))
    return [
        Problem(locate(where, field), field, parse_value(value), remedy) for field, value, remedy in lines
    ]


def _pattern_remedy(loc: Sequence[str]) -> str:
    if loc[-1] == "name":
        return "use letters, digits, dot, dash and underscore only"
    return 'write the time as "HH:MM", such as "18:15"'


def _unknown_key(model: type[BaseModel], loc: Sequence[str | int]) -> str:
    """Suggest the known key nearest to an unknown one, in its own section or in another."""
    here = _section(model, loc[:-1])
    key = str(loc[-1])
    hint = nearest(key, list(here.model_fields))
    if hint:
        return "there is no such key" + hint
    elsewhere = {
        name: f"{section}.{name}"
        for section, field in model.model_fields.items()
        for name in _fields(field.annotation)
    }
    if key in elsewhere:
        return f'there is no such key here (did you mean "{elsewhere[key]}"?)'
    return "there is no such key; known here: " + ", ".join(here.model_fields)


def _section(model: type[BaseModel], loc: Sequence[str | int]) -> type[BaseModel]:
    for part in loc:
        if isinstance(part, str):
            model = _model_in(model.model_fields[part].annotation) or model
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Find the model within X, X | None, tuple[X, ...]."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        found = _model_in(part)
        if found is not None:
            return found
    return None


def _fields(annotation: Any) -> list[str]:
    model = _model_in(annotation)
    return list(model.model_fields) if model is not None else []
