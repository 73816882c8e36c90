"""A market of simple arithmetic on the real clock and routes: every operator mixes all mail it gets into what
it sends.

A federation builds it by builder="toy_market:case" from a JSON file of ToySettings.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from voltier.agents.clock import MINUTE_S, MarketClock
from voltier.agents.messages import (
    Alarm,
    Attack,
    Conditions,
    Forecast,
    ImportSchedule,
    Injections,
    Measurement,
    PrimarySchedule,
    SmaBids,
    SmaMeters,
    SmaSchedule,
    SmoBids,
    Taps,
)
from voltier.agents.operator import Mail, Operator, Outbox, Rows
from voltier.federates.part import ExternalPart
from voltier.federates.ports import SOUND, Channel
from voltier.grid.errors import ClearingAborted

N_SMO = 6
SMA_PER_SMO = 3


@dataclass(frozen=True, slots=True)
class ToySettings:
    """trouble : name of an operator that makes trouble at trouble_s: "raise", "abort", "hang", "kill" or
    "exit".

    pause_s : wall time that the grid takes for each minute, so that a test can interfere.
    """

    end_s: int = 1200
    shards: int = 1
    trouble: str = ""
    trouble_kind: str = "raise"
    trouble_s: int = 300
    pause_s: float = 0.0
    sma_per_smo: int = SMA_PER_SMO


class ToyOperator:
    """One class for all roles: keeps a number that depends on everything it has read."""

    def __init__(self, name: str, settings: ToySettings) -> None:
        self.name, self._settings = name, settings
        self.role, _, shard = name.partition(".")
        self.shard = k = int(shard or 0)
        self.smo = np.array_split(np.arange(N_SMO), settings.shards)[k]
        n = settings.sma_per_smo
        self.sma = (
            np.concatenate([np.arange(n) + n * i for i in self.smo]) if self.role in ("smo", "cmo") else None
        )
        self._shards = range(settings.shards)
        self._k = k
        self._count = 0
        self._sma_state = np.zeros(N_SMO * n)
        self._smo_state = np.zeros(N_SMO)
        self._state = 0.1

    def decide(self, now_s: int, inbox: Sequence[Mail]) -> Outbox:
        """Read everything, write down what was read, answer by role."""
        self._make_trouble(now_s)
        outbox = Outbox()
        self._count += 1
        for mail in inbox:
            self._read(mail)
        if self._settings.shards == 1 or self.role not in ("smo", "cmo"):
            heard = [
                f"{m.sender}>{type(m.body).__name__}@{m.body.t_s}"
                for m in inbox
                if m.sender[:4] not in ("smo.", "cmo.")
            ]
            row = {"source": [self.name], "kind": [f"heard at {now_s}"], "text": [" ".join(heard)]}
            outbox.rows.append(Rows("events", now_s, row))
        getattr(self, f"_{self.role}")(now_s, now_s // MINUTE_S * MINUTE_S, outbox)
        return outbox

    def _make_trouble(self, now_s: int) -> None:
        if self.name != self._settings.trouble or now_s < self._settings.trouble_s:
            return
        match self._settings.trouble_kind:
            case "raise":
                raise ZeroDivisionError("toy trouble")
            case "abort":
                raise ClearingAborted("toy clearing failed")
            case "hang":
                time.sleep(3600)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "exit":
                os._exit(7)

    def _read(self, mail: Mail) -> None:
        body = mail.body
        if isinstance(body, SmaBids):
            self._sma_state[body.sma] += 0.5 * body.p0_kw - body.beta_p_usd_per_kw2h / 3.0
        elif isinstance(body, SmaMeters):
            self._sma_state[body.sma] *= 0.9
            self._sma_state[body.sma] += 0.01 * body.p_kw
        elif isinstance(body, SmaSchedule):
            self._sma_state[body.sma] = np.sin(self._sma_state[body.sma] + body.p_kw)
        elif isinstance(body, SmoBids):
            self._smo_state[body.smo] = 0.7 * self._smo_state[body.smo] + body.p0_kw / 7.0
        elif isinstance(body, PrimarySchedule):
            self._smo_state[body.smo] = body.p_kw + body.dlmp_p_usd_per_kwh
        elif isinstance(body, Injections):
            np.add.at(self._smo_state, body.bus, body.p_kw)
        elif isinstance(body, Conditions):
            self._state += body.price_usd_per_kwh + body.temp_air_c / 100.0
        elif isinstance(body, Forecast):
            self._state += float(body.price_usd_per_kwh.sum())
        elif isinstance(body, Measurement):
            self._state = 0.5 * self._state + float(body.p_cc_kw.sum()) / 11.0
        elif isinstance(body, Taps):
            self._state += float(body.tap.sum())
        elif isinstance(body, ImportSchedule):
            self._state += body.p_cc_kw / 13.0
        elif isinstance(body, Alarm):
            self._state += body.target_p_cc_kw / 17.0
        elif isinstance(body, Attack):
            self._smo_state[body.smo] += 1.0
        else:
            raise TypeError(type(body).__name__)

    def _send(self, outbox: Outbox, receiver: str, body: object) -> None:
        outbox.mail.append(Mail(self.name, receiver, body))

    def _wholesale(self, now_s: int, t_s: int, outbox: Outbox) -> None:
        cmos = [f"cmo.{k}" for k in self._shards]
        conditions = Conditions(
            t_s=t_s,
            price_usd_per_kwh=0.1 + now_s / 7e5,
            temp_air_c=np.pi * (1 + now_s / 1e4),
            pv_available=1 / 3,
        )
        for receiver in ["pmo", *cmos]:
            self._send(outbox, receiver, conditions)
        if now_s % 600 == 0:
            ahead = np.linspace(0.1, 0.3, 24) + now_s / 3e6
            forecast = Forecast(
                t_s=t_s, step_s=3600, price_usd_per_kwh=ahead, temp_air_c=ahead, pv_available=ahead
            )
            for receiver in cmos:
                self._send(outbox, receiver, forecast)

    def _resilience(self, now_s: int, t_s: int, outbox: Outbox) -> None:
        if self._count % 3 == 0:
            alarm = Alarm(t_s=t_s, active=self._count % 2 == 0, target_p_cc_kw=self._state, shortfall_kw=1.5)
            self._send(outbox, "pmo", alarm)
            for k in self._shards:
                self._send(outbox, f"smo.{k}", Attack(t_s=t_s, smo=np.array([0, N_SMO - 1]), active=True))

    def _smo(self, now_s: int, t_s: int, outbox: Outbox) -> None:
        own = self._smo_state[self.smo]
        if now_s % MINUTE_S == 0 and t_s % 300 == 0:
            columns = {name: own + i for i, name in enumerate(_number_fields(SmoBids))}
            self._send(outbox, "pmo", SmoBids(t_s=t_s, smo=self.smo, **columns))
            return
        columns = {
            name: self._sma_state[self.sma] / (i + 3) for i, name in enumerate(_number_fields(SmaSchedule))
        }
        self._send(outbox, f"cmo.{self._k}", SmaSchedule(t_s=t_s, sma=self.sma, **columns))
        # Some have no generator: an empty vector must travel too.
        has = self.smo[:0] if self._count % 5 == 0 else self.smo
        zero = np.zeros_like(has)
        values = self._smo_state[has] / 19.0
        self._send(outbox, "grid", Injections(t_s=t_s, bus=has, phase=zero, p_kw=values, q_kvar=values / 2))
        outbox.rows.append(Rows("primary", now_s, {"p_kw": own.copy(), "position": self.smo}))

    def _pmo(self, now_s: int, t_s: int, outbox: Outbox) -> None:
        price = 0.1 + 0.01 * np.tanh(self._smo_state + self._state)
        for k in self._shards:
            part = np.array_split(np.arange(N_SMO), self._settings.shards)[k]
            columns = {name: price[part] * (i + 1) for i, name in enumerate(_number_fields(PrimarySchedule))}
            self._send(outbox, f"smo.{k}", PrimarySchedule(t_s=t_s, smo=part, **columns))
        p_cc_kw = float(self._smo_state.sum())
        self._send(outbox, "resilience", ImportSchedule(t_s=t_s, p_cc_kw=p_cc_kw, load_kw=self._state))
        outbox.rows.append(Rows("clearings", now_s, {"gap": [self._state], "status": ["optimal"]}))

    def _cmo(self, now_s: int, t_s: int, outbox: Outbox) -> None:
        smo, own = f"smo.{self._k}", self._sma_state[self.sma]
        bids = {name: np.cos(own * (i + 1)) + self._state for i, name in enumerate(_number_fields(SmaBids))}
        self._send(outbox, smo, SmaBids(t_s=t_s + MINUTE_S, sma=self.sma, **bids))
        if t_s >= 0:
            meters = {name: own / (i + 2) for i, name in enumerate(_number_fields(SmaMeters))}
            self._send(outbox, smo, SmaMeters(t_s=t_s, sma=self.sma, **meters))
            bus = np.array(self.smo)
            p_kw = np.add.reduceat(own, np.arange(0, len(own), self._settings.sma_per_smo))
            self._send(outbox, "grid", Injections(t_s=t_s, bus=bus, phase=bus % 3, p_kw=p_kw, q_kvar=-p_kw))
            outbox.rows.append(Rows("secondary", now_s, {"p_kw": own.copy(), "position": self.sma}))

    def _grid(self, now_s: int, t_s: int, outbox: Outbox) -> None:
        time.sleep(self._settings.pause_s)
        p_kw = self._smo_state.reshape(3, -1).sum(axis=1)
        measurement = Measurement(t_s=t_s, p_cc_kw=p_kw, q_cc_kvar=p_kw / 3)
        for receiver in ("pmo", "resilience"):
            self._send(outbox, receiver, measurement)
        self._send(outbox, "pmo", Taps(t_s=t_s, tap=np.array([self._count % 16, -3])))
        outbox.rows.append(Rows("substation", now_s, {"p_kw": p_kw.copy()}))
        self._smo_state *= 0.5


def _number_fields(kind: type) -> list[str]:
    return [name for name in kind.__struct_fields__ if name not in ("t_s", "version", "sma", "smo")]


class FileSink:
    """Writes rows as JSON lines, one flush a commit."""

    def __init__(self, run_dir: Path) -> None:
        self._file = (run_dir / "rows.jsonl").open("a", encoding="utf-8")

    def write(self, rows: Rows) -> None:
        """Write rows."""
        columns = {name: np.asarray(values).tolist() for name, values in rows.columns.items()}
        self._file.write(json.dumps([rows.t_s, rows.table, columns]) + "\n")

    def commit(self, now_s: int) -> None:
        """Mark the commit."""
        self._file.write(json.dumps([now_s, "commit", {}]) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file with a mark."""
        self._file.write(json.dumps([0, "closed", {}]) + "\n")
        self._file.close()


class ToyCase:
    """The toy market as a Case."""

    def __init__(self, settings: ToySettings) -> None:
        self.settings = settings

    def operator_names(self) -> list[str]:
        """Name every operator."""
        shards = range(self.settings.shards)
        sharded = [f"{role}.{k}" for role in ("smo", "cmo") for k in shards]
        return ["wholesale", "resilience", "pmo", "grid", *sharded]

    def build_operator(self, name: str) -> Operator:
        """Build one operator."""
        return ToyOperator(name, self.settings)

    def market_clock(self) -> MarketClock:
        """Return the clock."""
        return MarketClock(primary_period_s=300, end_s=self.settings.end_s)

    def open_sink(self, run_dir: Path) -> FileSink:
        """Open the file of rows."""
        return FileSink(run_dir)

    def channel(self) -> Channel:
        """Let all mail arrive."""
        return SOUND

    def external_part(self, name: str) -> ExternalPart:
        """Name the rows of a shard; the toy market goes on without its secondary operators."""
        operator = ToyOperator(name, self.settings)
        rows = {} if operator.sma is None else {"SmoBids>pmo": operator.smo.tolist()}
        if operator.sma is not None:
            rows[f"SmaSchedule>cmo.{operator.shard}"] = operator.sma.tolist()
        return ExternalPart(facts={"smo": operator.smo.tolist()}, rows=rows, survives=operator.role == "smo")


def case(config: Path) -> ToyCase:
    """Build the case from its file."""
    return ToyCase(ToySettings(**json.loads(config.read_text(encoding="utf-8"))))


def write_config(settings: ToySettings, run_dir: Path) -> Path:
    """Write the file from which every federate builds the case."""
    (run_dir / "logs").mkdir(parents=True)
    path = run_dir / "toy.json"
    path.write_text(json.dumps(asdict(settings)), encoding="utf-8")
    return path


def read_rows(run_dir: Path) -> dict[tuple[str, int], dict[str, list]]:
    """Read back rows by (table, time, first text), pieces of shards joined by position."""
    found: dict[tuple[str, int], dict[str, list]] = {}
    for line in (run_dir / "rows.jsonl").read_text(encoding="utf-8").splitlines():
        t_s, table, columns = json.loads(line)
        if table in ("commit", "closed"):
            continue
        name = table + (columns["source"][0] if "source" in columns else "")
        held = found.setdefault((name, t_s), {column: [] for column in columns})
        for column, values in columns.items():
            held[column] += values
    for columns in found.values():
        if "position" in columns:
            order = np.argsort(columns["position"])
            for column, values in columns.items():
                columns[column] = [values[i] for i in order]
    return found
