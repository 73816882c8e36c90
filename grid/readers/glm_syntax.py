"""The syntax of GridLAB-D models (.glm): objects with their properties, and where each stands in which file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from voltier.grid.errors import InputError, Problem

DELIMITER = re.compile(r"[{};'\"]")
VARIABLE = re.compile(r"\$\{([^}]*)\}")
SKIPPED_BLOCKS = ("clock", "class", "schedule", "filter")
SKIPPED_STATEMENTS = ("module", "clock", "script", "global", "dbconn")
QUIET_MACROS = ("set", "print", "warning", "setenv", "option", "binpath", "libpath", "incpath")


@dataclass(slots=True)
class GlmObject:
    """One object: class, name, properties with the line each stands at.

    name : the name property, or "class:id" without one ; keys : all texts that refer to it ; owner : name of the
    object it stands in, or of its parent property ; text : property → what is written ; line_of : property → line
    """

    kind: str
    name: str
    keys: tuple[str, ...]
    file: str
    line: int
    owner: str | None = None
    text: dict[str, str] = field(default_factory=dict)
    line_of: dict[str, int] = field(default_factory=dict)

    def problem(self, key: str, remedy: str, value: object = None) -> Problem:
        """Describe what is wrong with a property of the object."""
        shown = self.text.get(key, "missing") if value is None else value
        line = self.line_of.get(key, self.line)
        return Problem(f"{self.file}:{line}: {self.kind} {self.name}", key, shown, remedy)


@dataclass(frozen=True, slots=True)
class GlmModel:
    """All objects in the order of the file, and the settings of modules as "module.setting"."""

    objects: list[GlmObject]
    settings: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Piece:
    """Text up to a delimiter: "{", "}", ";", or "" at the end."""

    head: str
    delimiter: str
    file: str
    line: int


@dataclass(slots=True)
class _Condition:
    """An open #ifdef or #ifndef: its text, where it stands, and whether what follows is read."""

    text: str
    where: str
    holds: bool


def parse_glm(path: Path) -> GlmModel:
    """Read a file and what it includes.

    Understood: objects (named, numbered, nested, as a value of a property), modules with settings, comments, #include,
    #define and ${...}, #ifdef, #ifndef, #else, #endif; clock, class and schedule blocks are passed over. As when
    GridLAB-D is started in the folder of the file, includes are looked for from there, also those of included files,
    and a file is taken in once. Raises InputError naming file and line for a missing file, a file that includes
    itself, a brace or condition that does not close, and anything else.
    """
    lines = list(_Source(path.parent).lines(path, path.name))
    pieces = _pieces(lines)
    model = GlmModel([], {})
    for piece in pieces:
        words = piece.head.split()
        if piece.delimiter == "{" and words and words[0] == "object":
            _read_object(model, piece, pieces, None)
        elif piece.delimiter == "{" and words and words[0] == "module":
            _read_settings(model, piece, pieces)
        elif piece.delimiter == "{" and words and words[0] in SKIPPED_BLOCKS:
            _skip_block(piece, pieces)
        elif words and not (piece.delimiter == ";" and words[0] in SKIPPED_STATEMENTS):
            raise _wrong(piece, "write object, module, clock, class or schedule here")
        elif piece.delimiter == "}":
            raise _wrong(piece, "remove the closing brace; nothing is open")
    return model


def _wrong(piece: _Piece, remedy: str) -> InputError:
    return InputError([Problem(f"{piece.file}:{piece.line}", "text", piece.head or piece.delimiter, remedy)])


class _Source:
    """The text of a model with its macros carried out.

    folder : where includes are looked for ; defined : what #define says ; open, read : files on the way, files done
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.defined: dict[str, str] = {}
        self.open: list[Path] = []
        self.read: set[Path] = set()

    def lines(self, path: Path, shown: str) -> Iterator[tuple[str, str, int]]:
        """Yield (text, file, line) without comments; shown : who asks for the file."""
        if not path.is_file():
            remedy = f"provide {path.name} in {path.parent.name or path.parent}/"
            found = "a folder" if path.is_dir() else "missing"
            raise InputError([Problem(shown, "file", found, remedy)])
        whole = path.resolve()
        if whole in self.open:
            chain = " includes ".join(file.name for file in (*self.open[self.open.index(whole) :], whole))
            raise InputError([Problem(shown, "include", chain, "remove the #include that closes the circle")])
        if whole in self.read:
            return
        self.open.append(whole)
        conditions: list[_Condition] = []
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        if "\0" in text:
            raise InputError([Problem(shown, "file", path.name, "is no text; give a model as .glm")])
        for number, raw in enumerate(text.splitlines(), start=1):
            if raw.lstrip().startswith("#"):
                # a number sign that stands alone opens a comment
                if raw.strip()[1:2].strip():
                    yield from self._macro(raw.strip()[1:], f"{path.name}:{number}", conditions)
            elif all(condition.holds for condition in conditions):
                line = _expand(_without_comment(raw), path.name, number, self.defined)
                yield line, path.name, number
        if conditions:
            raise InputError(
                [Problem(conditions[-1].where, "macro", conditions[-1].text, "close it by #endif")]
            )
        self.read.add(self.open.pop())

    def _macro(self, text: str, where: str, conditions: list[_Condition]) -> Iterator[tuple[str, str, int]]:
        word, _, rest = text.partition(" ")
        rest = _without_comment(rest).strip().rstrip(";")
        if word in ("ifdef", "ifndef"):
            holds = (rest in self.defined) == (word == "ifdef")
            conditions.append(_Condition(f"#{text.strip()}", where, holds))
        elif word == "else" and conditions:
            conditions[-1].holds = not conditions[-1].holds
        elif word == "endif" and conditions:
            conditions.pop()
        elif not all(condition.holds for condition in conditions):
            return
        elif word == "define":
            name, _, value = rest.partition("=")
            self.defined[name.strip()] = value.strip()
        elif word == "include":
            yield from self.lines(self.folder / rest.strip("<>\"'"), where)
        elif word not in QUIET_MACROS:
            raise InputError(
                [Problem(where, "macro", f"#{word}", "the macro is not supported; write its result")]
            )


def _without_comment(text: str) -> str:
    """Cut from // on, unless it stands inside quotes."""
    quote = ""
    for k, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"" and text.count(letter, k) > 1:
            quote = letter
        elif text.startswith("//", k):
            return text[:k]
    return text


def _expand(text: str, file: str, number: int, defined: dict[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] not in defined:
            raise InputError(
                [Problem(f"{file}:{number}", match[0], "not defined", f"#define {match[1]}=... first")]
            )
        return defined[match[1]]

    return VARIABLE.sub(value, text)


def _pieces(lines: list[tuple[str, str, int]]) -> Iterator[_Piece]:
    """Cut at braces and semicolons outside quotes; quotes themselves are dropped."""
    head, start, quote = "", ("", 0), ""
    for text, file, number in lines:
        at = 0
        for match in DELIMITER.finditer(text):
            letter = match[0]
            head += text[at : match.start()]
            at = match.end()
            start = start if head.strip() and start[1] else (file, number)
            if quote:
                # inside quotes everything but their end is text
                quote, head = ("", head) if letter == quote else (quote, head + letter)
            elif letter in "'\"":
                quote = letter
            else:
                yield _Piece(head.strip(), letter, *start)
                head, start = "", ("", 0)
        head += text[at:] + " "
        if head.strip() and not start[1]:
            start = (file, number)
    if head.strip() or quote:
        yield _Piece(head.strip(), "", *start)


def _read_object(model: GlmModel, opening: _Piece, pieces: Iterator[_Piece], owner: str | None) -> GlmObject:
    """Read up to the closing brace; nested objects are read on the way and belong to this one."""
    words = opening.head.split()
    if len(words) != 2 or ".." in words[1]:
        raise _wrong(opening, "write object class or object class:number; several at once are not supported")
    kind, _, number = words[1].partition(":")
    key = words[1] if number else f"{kind}@{opening.file}:{opening.line}"
    made = GlmObject(kind, key, (key,), opening.file, opening.line, owner)
    model.objects.append(made)
    inner: list[GlmObject] = []
    for piece in pieces:
        name, _, rest = piece.head.partition(" ")
        if piece.delimiter == "}" and not piece.head:
            break
        if piece.delimiter == "{" and name == "object":
            inner.append(_read_object(model, piece, pieces, key))
        elif piece.delimiter == "{" and rest.split()[:1] == ["object"]:
            nested = _Piece(rest.strip(), "{", piece.file, piece.line)
            made.text[name] = _read_object(model, nested, pieces, None).name
            made.line_of[name] = piece.line
        elif piece.delimiter == ";" and (rest or not piece.head):
            if piece.head:
                made.text[name], made.line_of[name] = rest.strip(), piece.line
        else:
            raise _wrong(piece, "write property and value with a semicolon, or close the object")
    else:
        raise _wrong(opening, "close the object with a brace")
    if "name" in made.text:
        made.name = made.text["name"]
        made.keys = (*made.keys, made.name)
    made.owner = made.text.get("parent", owner)
    for other in inner:
        other.owner = other.owner if other.owner != key else made.name
    return made


def _read_settings(model: GlmModel, opening: _Piece, pieces: Iterator[_Piece]) -> None:
    module = opening.head.split()[1] if len(opening.head.split()) == 2 else ""
    for piece in pieces:
        name, _, value = piece.head.partition(" ")
        if piece.delimiter == "}" and not piece.head:
            return
        if piece.delimiter != ";" or not module:
            break
        if name:
            model.settings[f"{module}.{name}"] = value.strip()
    raise _wrong(opening, "write module name { setting value; ... }")


def _skip_block(opening: _Piece, pieces: Iterator[_Piece]) -> None:
    depth = 1
    for piece in pieces:
        depth += {"{": 1, "}": -1}.get(piece.delimiter, 0)
        if depth == 0:
            return
    raise _wrong(opening, "close the block with a brace")
