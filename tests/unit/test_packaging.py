"""The explicit package list in pyproject.toml is complete."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("agents", "federates", "grid", "market", "scenarios")


def test_every_package_is_listed():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found = {
        "voltier." + ".".join(path.parent.relative_to(ROOT).parts)
        for room in ROOMS
        for path in (ROOT / room).rglob("__init__.py")
    }
    assert found == set(settings["tool"]["setuptools"]["packages"])
