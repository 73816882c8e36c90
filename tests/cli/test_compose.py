"""The containers start what the launcher starts."""

from pathlib import Path

import typer.main
import yaml

from voltier.federates.cli import app
from voltier.scenarios.build import operator_names
from voltier.scenarios.schema import load_scenario

COMPOSE = Path(__file__).parents[2] / "docker-compose.yml"


def services() -> dict[str, dict]:
    return yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]


def test_every_command_is_one_the_command_line_takes() -> None:
    group = typer.main.get_command(app)
    for service in services().values():
        name, *arguments = service["command"]
        # Parses the arguments and raises if one is wrong; nothing runs.
        group.commands[name].make_context(name, list(arguments))


def test_there_is_a_service_for_every_federate_and_the_broker_waits_for_all() -> None:
    commands = [service["command"] for service in services().values()]
    roles = [command[1] for command in commands if command[0] == "federate"]
    operators = [*operator_names(load_scenario("ieee123-day")), "recorder"]
    assert sorted(roles) == sorted([*operators, "broker"])
    broker = next(command for command in commands if command[:2] == ["federate", "broker"])
    assert broker[broker.index("--operators") + 1] == str(len(operators))


def test_all_services_share_one_image_and_one_key() -> None:
    assert {service["image"] for service in services().values()} == {"voltier"}
    federates = [s["command"] for s in services().values() if s["command"][0] == "federate"]
    assert len({command[command.index("--key") + 1] for command in federates}) == 1
