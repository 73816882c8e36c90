"""YAML as people mean it: 10:15 is a time, 1e-3 a number, no is a word; and each key's line is remembered."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import yaml

from voltier.grid.errors import InputError, Problem


class _Loader(yaml.SafeLoader):
    """The safe loader with the number rules of YAML 1.2 (1.1 reads 10:15 as 615 and 1e-3 as text)."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Refuse aliases, with which a short file can ask for endless values."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(
                None, None, "aliases such as *name are not used here; write the values out", event.start_mark
            )
        return super().compose_node(parent, index)


for _tag, _pattern, _first in (
    ("null", r"^(?:~|null|Null|NULL|)$", "~nN"),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
    ("float", r"^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$", "-+."),
    ("timestamp", r"^\d{4}-\d\d-\d\d(?:[Tt ]\d\d:\d\d(?::\d\d)?)?$", "0123456789"),
    ("merge", r"^<<$", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^$"), [""])


def _decimal(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    return float(loader.construct_scalar(node).replace(".inf", "inf").replace(".nan", "nan"))


def _moment(loader: _Loader, node: yaml.ScalarNode) -> Any:
    moment = datetime.fromisoformat(loader.construct_scalar(node))
    return moment if len(node.value) > len("2020-07-15") else moment.date()


_Loader.add_constructor("tag:yaml.org,2002:int", _decimal)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _moment)


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Read a YAML mapping; return it and, for each dotted key, "file:line" where it stands.

    Raises InputError for syntax errors (with their line), keys given twice, and files that are not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            [Problem(str(path), "file", str(path), f"cannot be read: {error.strerror}")]
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(
            [Problem(str(path), "file", str(path), f"is not UTF-8 text: {error.reason}")]
        ) from error
    where = {"": str(path)}
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        twice = _note_lines(node, "", path, where) if node is not None else []
        value = loader.construct_document(node) if node is not None else {}
    except (yaml.YAMLError, ValueError) as error:
        raise InputError([_syntax_problem(path, error)]) from error
    except RecursionError as error:
        raise InputError(
            [Problem(str(path), "yaml", "...", "is nested too deeply to be a scenario")]
        ) from error
    if twice:
        raise InputError(twice)
    if value is None or value == {}:
        raise InputError([Problem(str(path), "file", "empty", 'say at least "extends: ieee123-day"')])
    if not isinstance(value, dict):
        raise InputError(
            [Problem(str(path), "file", type(value).__name__, 'write keys and values, "hours: 24"')]
        )
    return value, where


def parse_value(text: str) -> Any:
    """Read one value as it would be read from a scenario file."""
    return yaml.load(text, Loader=_Loader)


def _syntax_problem(path: Path, error: Exception) -> Problem:
    mark = getattr(error, "problem_mark", None)
    where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
    text = getattr(error, "problem", None) or str(error)
    context = getattr(error, "context", None)
    lines = mark.buffer.rstrip("\0").splitlines() if mark is not None and mark.buffer else []
    shown = lines[mark.line].strip() if mark is not None and mark.line < len(lines) else ""
    return Problem(
        where, "yaml", shown, f"cannot be read as YAML: {text}" + (f" ({context})" if context else "")
    )


def _note_lines(node: yaml.Node, prefix: str, path: Path, where: dict[str, str]) -> list[Problem]:
    """Note the line of every key below node, and return keys that stand twice."""
    twice: list[Problem] = []
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            field, line = f"{prefix}{key.value}", key.start_mark.line + 1
            if field in seen:
                remedy = f"stands twice, first on line {seen[field]}; keep one"
                twice.append(Problem(f"{path}:{line}", field, getattr(value, "value", "..."), remedy))
            seen[field] = line
            where[field] = f"{path}:{line}"
            twice += _note_lines(value, field + ".", path, where)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            where[f"{prefix}{i}"] = f"{path}:{value.start_mark.line + 1}"
            twice += _note_lines(value, f"{prefix}{i}.", path, where)
    return twice
