"""The text that goes with an exported GridLAB-D case."""

from __future__ import annotations

from pathlib import Path

from voltier.scenarios.schema import Scenario

_TEXT = """GridLAB-D case of voltier scenario {name}
Feeder {feeder}; {source}
Start every command in this folder: GridLAB-D looks for included files and players from there.
The clock runs in the scenario's local standard time, without daylight saving.

1 One instant: power flow alone
    gridlabd snapshot.glm
  snapshot.glm takes in network.glm (wires, regulators at their taps, capacitors, loads injection_BUS{zero}){loads}.
  voltier reads it back: voltier import gridlabd snapshot.glm DIR

2 The whole time, driven by players
    gridlabd model.glm
  or, with the package (pip install gridlabd):
    python run.py
  {players} files in players/, one for each load point and each regulator phase that moves: time, value.
  A value holds until the next. Powers are in VA, consumption positive, injection negative. Recorders write voltages of
  all nodes and the power at the source into results/, every minute.
  Regulators are held (Control MANUAL) {taps}.
  GridLAB-D lets a moved tap act at its next instant: files of taps run one second ahead.

3 As a HELICS federate, in a GridLAB-D built with HELICS (5.x; the pip package has none)
    helics_broker -f 2 &
    gridlabd model_helics.glm
  helics.json names the topics; "info" of each says which object and property it is. GridLAB-D publishes
  gridlabd/BUS/voltage_A [V] and gridlabd/SOURCE/measured_power_A [VA]; it follows voltier/BUS/load_A [VA, complex,
  consumption positive], which your federate has to publish. For another broker, add to helics.json
  "core_init_string": "--broker_address=tcp://HOST:PORT".

4 As a HELICS federate, with the pip packages gridlabd and voltier: the same topics from the same helics.json
    helics_broker -f 2 &
    python -m voltier.federates.gridlabd_federate federate.json
  federate.json says which model, from when, how long, in which steps. GridLAB-D runs in a process of its own there.
"""


def readme(scenario: Scenario, run_dir: Path | None, players: int, loads: str) -> str:
    """Say how to run each part of a case. players : how many files ; loads : file of the spot loads, "" for none."""
    if run_dir is None:
        source = "loads are the published spot loads of the feeder, constant."
        taps = "where they come to rest" if scenario.feeder.regulators == "controlled" else "at fixed taps"
    else:
        source = f"net loads and taps are those of the run {run_dir.name}, minute by minute."
        taps = (
            "at the taps of the run, which players move"
            if scenario.feeder.regulators == "controlled"
            else "at fixed taps"
        )
    return _TEXT.format(
        name=scenario.name,
        feeder=Path(scenario.feeder.name).name,
        source=source,
        zero=" of no power" if loads else " as in the first minute",
        loads=f" and {loads} (the spot loads)" if loads else "",
        players=players,
        taps=taps,
    )
