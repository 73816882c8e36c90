"""`voltier check`: does a program from outside play its part? A few minutes of the market, everything examined."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voltier.federates import exit_codes
from voltier.federates.options import AnswerOption, JoinOption, SetOption, refuse
from voltier.federates.ports import Door, OutsiderError
from voltier.federates.wiring import LOOPBACK, Wiring

if TYPE_CHECKING:
    from rich.console import Console

    from voltier.agents.operator import Operator
    from voltier.federates.carving import Cut
    from voltier.federates.case import ScenarioCase
    from voltier.federates.gate import Gate
    from voltier.scenarios.schema import Scenario


@dataclass(slots=True)
class Verdict:
    """Lines of (what was looked at, "ok" | "note" | "FAIL", what was found)."""

    lines: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return all(state != "FAIL" for _, state, _ in self.lines)

    def add(self, what: str, state: str, found: str) -> None:
        """Add a line."""
        self.lines.append((what, state, found))

    def show(self, console: Console) -> None:
        """Print the lines as a table."""
        from rich.markup import escape
        from rich.table import Table

        from voltier.federates.foreign import wide

        table = Table("", "", "found", box=None, pad_edge=False, header_style="bold")
        style = {
            "ok": "[green]ok[/green]",
            "note": "[yellow]note[/yellow]",
            "FAIL": "[bold red]FAIL[/bold red]",
        }
        for what, state, found in self.lines:
            table.add_row(what, style[state], escape(found))
        wide(console).print(table)
        console.print("[bold green]passed[/bold green]" if self.passed else "[bold red]not passed[/bold red]")


def check(
    target: Annotated[
        str,
        typer.Argument(metavar="SCENARIO|DIR", help="A scenario, or a folder of `voltier export helics`."),
    ],
    federate: Annotated[str, typer.Option(metavar="ROLE", help="Its part: smo.0, grid, ..., or smo:BUS.")],
    command: Annotated[
        str,
        typer.Option(
            help="Start it by this; {invitation} is the file that tells where to join. Default: wait for it."
        ),
    ] = "",
    minutes: Annotated[int, typer.Option(min=1, help="Length of the market that is played [min].")] = 10,
    broker: Annotated[str, typer.Option(help="Meet it at this HELICS broker; default: start one.")] = "",
    key: Annotated[str, typer.Option(help="Key of the broker.")] = "voltier",
    transport: Annotated[str, typer.Option(help="zmq or tcp.")] = "zmq",
    interface: Annotated[str, typer.Option(help="Own address that it reaches.")] = LOOPBACK,
    join_limit: JoinOption = 120.0,
    answer_limit: AnswerOption = 60.0,
    override: SetOption = None,
) -> None:
    """Check a program that is to play an operator: its topics, times and messages, over a few minutes of a market.

    All partners are there and act as in a run. Exit code 0: it conforms; 2: it does not, and the table says where.
    """
    from voltier.federates.carving import part_name
    from voltier.federates.foreign_part import check_playable
    from voltier.federates.show import console
    from voltier.scenarios.schema import load_scenario

    try:
        words = [word.format(invitation="FILE") for word in shlex.split(command)]
    except (ValueError, LookupError):
        refuse("--command", command, "write {invitation} for the file, and other braces twice: {{ }}")
    if words and shutil.which(words[0]) is None:
        refuse("--command", command, f"there is no program {words[0]} on the PATH; give its path")
    if transport not in ("zmq", "tcp"):
        refuse("--transport", transport, "take zmq or tcp")
    exported = Path(target) / "run" / "config.resolved.yaml"
    source = exported.resolve() if exported.is_file() else target
    scenario = load_scenario(source, [*(override or []), f"hours={minutes / 60!r}"])
    name = part_name(federate)
    check_playable(scenario, name, option="--federate")
    door = Door(transport, key, interface, join_s=join_limit, answer_s=answer_limit, address=broker)
    verdict = examine_program(scenario, name, door, command, console)
    verdict.show(console)
    if not verdict.passed:
        raise typer.Exit(exit_codes.INPUT)


def examine_program(scenario: Scenario, name: str, door: Door, command: str, console: Console) -> Verdict:
    """Meet a program at a door, play the scenario with it and return what was found."""
    from voltier.federates.case import ScenarioCase
    from voltier.federates.foreign import invitation, show_invitation, write_invitation
    from voltier.federates.gate import Gate

    case, verdict = ScenarioCase(scenario), Verdict()
    part, clock = case.external_part(name), case.market_clock()
    gate = Gate(name, _wiring(case, name), clock, door)
    program = None
    with tempfile.TemporaryDirectory(prefix="voltier-check-") as folder:
        path = write_invitation(Path(folder), gate.part, clock, part, door, gate.address)
        try:
            if command:
                program = _start(command, path)
            else:
                show_invitation(console, invitation(gate.part, clock, part, door, gate.address), path)
            _play(case, name, gate, verdict, program)
        except OutsiderError as error:
            verdict.add("refused", "FAIL", str(error))
        finally:
            gate.close("the check has ended")
            if program is not None:
                _end(program, verdict)
    return verdict


def _start(command: str, invitation: Path) -> subprocess.Popen[bytes]:
    """Start a program. Raises InputError if the system cannot."""
    words = [word.format(invitation=invitation) for word in shlex.split(command)]
    try:
        return subprocess.Popen(words, env=dict(os.environ))
    except OSError as error:
        refuse(
            "--command", command, f"it cannot be started ({error.strerror}); give a program and its arguments"
        )


def _play(
    case: ScenarioCase, name: str, gate: Gate, verdict: Verdict, program: subprocess.Popen[bytes] | None
) -> None:
    from voltier.federates.carving import ALONE, CarvedOperator
    from voltier.federates.external import ExternalOperator
    from voltier.federates.local import run_local

    clock, wiring = case.market_clock(), _wiring(case, name)
    gate.welcome(partial(_alive, program))
    verdict.add("joins", "ok", f"at {gate.address}")
    part = gate.part
    n = len(part.writes) + len(part.reads), len(part.publications), len(part.subscriptions)
    verdict.add("topics", "ok", f"{n[0]} endpoints, {n[1]} publications, {n[2]} values to subscribe to")
    for finding in gate.findings:
        verdict.add("topics", "note", finding.text)
    # Here nobody goes on without it.
    external = replace(case.external_part(name), survives=False)
    operator = ExternalOperator(name, gate, wiring, clock, external)
    acting: Operator = operator
    if name.startswith(ALONE):
        acting = CarvedOperator(*_carved(case, name, operator))
    others = [case.build_operator(other) for other in case.operator_names() if other != acting.name]
    try:
        run_local([acting, *others], clock, lambda rows: None, lambda now_s: None)
    finally:
        for kind, times in operator.sent.items():
            shown = _few(times)
            verdict.add(kind, "ok", f"{len(times)} found sound, at simulated seconds {shown}")
    gate.close()
    verdict.add("plays to the end", "ok", f"of the {clock.end_s // 60} minutes")


def _alive(program: subprocess.Popen[bytes] | None) -> None:
    """Raise OutsiderError if a program has failed before it joined; one that ends well may have started another."""
    if program is not None and program.poll():
        raise OutsiderError(f"it ended with exit code {program.returncode} before it had joined")


def _wiring(case: ScenarioCase, name: str) -> Wiring:
    """Return the wiring that a part sees."""
    from voltier.federates.carving import ALONE, wiring_alone
    from voltier.federates.foreign_part import shard_of

    whole = Wiring(case.operator_names())
    if not name.startswith(ALONE):
        return whole
    return wiring_alone(whole, shard_of(case.scenario, name), name.removeprefix(ALONE))


def _carved(case: ScenarioCase, name: str, operator: Operator) -> tuple[Operator, Operator, Cut]:
    """Return what a carved operator is made of: ours, theirs, and the cut."""
    from voltier.federates.carving import ALONE
    from voltier.federates.foreign_part import shard_of

    ours, cut = case.carve(shard_of(case.scenario, name), name.removeprefix(ALONE))
    return ours, operator, cut


def _few(times: Sequence[int]) -> str:
    shown = ", ".join(str(t) for t in times[:4])
    return shown if len(times) <= 4 else f"{shown}, ... {times[-1]}"


def _end(program: subprocess.Popen[bytes], verdict: Verdict) -> None:
    """See the program to its end."""
    try:
        code = program.wait(timeout=10.0)
    except subprocess.TimeoutExpired:
        program.kill()
        program.wait()
        verdict.add("ends", "note", "it had to be killed: 10 s after the end it was still there")
        return
    verdict.add("ends", "ok" if code == 0 else "note", f"with exit code {code}")
