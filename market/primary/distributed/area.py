"""One area that clears the market together with others, knowing only its own operators' bids.

An area is an atom with a process of its own; see nst_pac for the rounds and exchange for what carries them. What a
neighbour learns is this and no more:

- every round, of every unknown that both hold (flows and voltages of the branches between them), the value that this
  area gives it, and for copies that this area holds, their multiplier ν̂. The private share of ν̂ keeps the true ν from
  whoever overhears single packets, not from the neighbour: who knows both values and the last ν̂ can compute it. It is
  the price at the boundary, and both need it;
- at every look five maxima: consensus, equations, last step and size of the multipliers, linearisation. They are this
  area's own when they leave it and a maximum over ever more areas from then on;
- at the start a mark of the last agreement, and throughout the numbers of half-rounds and whether it has ended.

Bids, costs, set points, prices and voltages inside the area do not leave it. What may be inferred of it from many
rounds is how its flow at the boundary answers to the price and voltage there, as with any buyer; that is not hidden.

Decisions need nobody in the middle: at a look each area puts in its own maxima, neighbours pass on the larger for as
many half-rounds as the farthest areas are apart, and then all know the same and decide the same. Rounds go on
meanwhile; where something else than going on is decided, they are dropped and the areas are back at the look. So areas
do what the same atoms do in one process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from voltier.grid.errors import FederationError, InputError, Problem
from voltier.market.primary.distributed.area_atom import AreaAtom, LocalTangents
from voltier.market.primary.distributed.atoms import Profile
from voltier.market.primary.distributed.exchange import (
    DECIDED,
    NOTHING,
    OUT_OF_SLOTS,
    RUNNING,
    SETTLED,
    Exchange,
    Packet,
    Transport,
)
from voltier.market.primary.distributed.judge import Judge, Look
from voltier.market.primary.distributed.options import MethodName, Options, check_options
from voltier.market.primary.distributed.program import ConvexProgram
from voltier.market.primary.distributed.successive import POINT_LIMIT

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Point = TypeVar("Point")
Half = Literal["primal", "dual"]


@dataclass(frozen=True, slots=True)
class AreaWarm(Generic[Point]):
    """Where an area stood at the end of an agreed clearing, as a start for the next.

    mark : the same for all areas that took part in the same agreement ; column : of what a holds
    a : own unknowns, then foreign ends ; duals : (m,) of the program's rows ; nu : as last told
    """

    mark: float
    column: NDArray[np.int64]
    a: Array
    duals: Array
    nu: Array
    x: Array
    point: Point


@dataclass(frozen=True, slots=True)
class AreaSolution(Generic[Point]):
    """An area's part. own_column (n,), own_row (m,) : masks ; x (n,), duals (m,) : nan where they are not its own

    rounds : of all programs ; points visited ; point, program : the last ; looks : (k, 4) of all looks rounds,
    consensus, rows [p.u.], relative change of the multipliers ; bend : what linearising has left anywhere [p.u.]
    warm : None where the areas did not agree
    """

    own_column: Mask
    x: Array
    own_row: Mask
    duals: Array
    rounds: int
    points: int
    point: Point
    program: ConvexProgram
    looks: Array
    bend: float
    warm: AreaWarm[Point] | None


@dataclass(slots=True)
class _Poll:
    """Maxima on their way. hops : how far they have come"""

    kind: Literal["greeting", "look"]
    largest: Array
    hops: int = 0


class AreaSolver(Generic[Point]):
    """One area at work; slot() is called once in every slot of the channel until done.

    tangents : the market, with this area's bids ; point, x : public start, the same for all areas but for what only
    this one holds ; profile : places of the areas ; options : the same for all, but for a secret seed of each
    warm : of this area's last clearing, used where every area has the one of the same agreement
    failure : why there is no solution, "" where there is or may yet be one. Raises InputError for what is not built.
    """

    def __init__(
        self,
        tangents: LocalTangents[Point],
        point: Point,
        x: Array,
        profile: Profile,
        area: int,
        options: Options,
        *,
        method: MethodName = "nst-pac",
        transport: Transport | None = None,
        warm: AreaWarm[Point] | None = None,
    ) -> None:
        check_options(options)
        _check(profile, area, method, options)
        self._tangents, self._profile, self.area, self._options = tangents, profile, area, options
        self._cold = point, x
        self._transport = transport or Transport()
        atom, mark = self._cold_atom(), 0.0
        if warm is not None and np.array_equal(warm.column, atom.column):
            atom, mark = self._warm_atom(warm), warm.mark
        self._mark, self._reach = mark, max(atom.part.reach, 1)
        self._atom, self._judge = atom, Judge(options)
        # Which half was made and told last; the first half of a round follows the second.
        self._told: Half = "dual"
        self._next_look = self._look_after(0)
        self.neighbours: tuple[int, ...] = tuple(link.neighbour for link in atom.part.links)
        self._exchange = Exchange(area, self.neighbours, self._transport)
        self._poll: _Poll | None = _Poll("greeting", np.array([mark, -mark]))
        self._rounds_before, self._points, self._looks = 0, 1, list[tuple[float, float, float, float]]()
        self._bend, self._halt, self._settled_at = np.inf, RUNNING, 0
        self.failure, self.done = "", False

    # ------------------------------------------------------------------ the channel's side

    def slot(self, packets: Sequence[Packet]) -> list[Packet]:
        """Take what has arrived, go on as far as it allows, and return what is to be sent.

        Raises FederationError for packets that cannot be this area's.
        """
        if self.done:
            return []
        exchange = self._exchange
        exchange.take(packets)
        # Neighbours can be one half-round ahead: more than two cannot be due.
        for _ in range(2):
            if self._halt == RUNNING and exchange.ready:
                self._step()
        if self._halt == RUNNING:
            self._watch()
        if self._halt == DECIDED and exchange.settled:
            self._halt = SETTLED
        out = exchange.outgoing(self._halt)
        self.done = self._over()
        return out

    @property
    def slots(self) -> int:
        """Slots gone by."""
        return self._exchange.slot

    @property
    def rounds(self) -> int:
        """Rounds made at all points up to the last look that decided anything, and since."""
        return self._rounds_before + self._atom.rounds

    @property
    def packets_sent(self) -> int:
        """Packets sent, repeated ones among them."""
        return self._exchange.packets

    @property
    def bytes_sent(self) -> int:
        """Bytes of values and verdicts in them, 8 for a number."""
        return 8 * self._exchange.floats

    def _watch(self) -> None:
        exchange = self._exchange
        told = [halt for halt in exchange.halts() if halt > RUNNING or halt == OUT_OF_SLOTS]
        silent = exchange.silent()
        if told:
            why = "slots ran out elsewhere" if told[0] < 0 else f"others no longer hear of area {told[0] - 1}"
            self._fail(told[0], why)
        elif silent is not None:
            self._fail(silent + 1, f"area {silent} not heard of for {self._transport.patience_slots} slots")
        elif exchange.slot >= self._transport.slot_limit:
            self._fail(OUT_OF_SLOTS, f"not agreed within {exchange.slot} slots")

    def _fail(self, halt: int, why: str) -> None:
        self._halt, self.failure = halt, f"area {self.area}, round {self.rounds}: {why}"
        self._settled_at = self._exchange.slot

    def _over(self) -> bool:
        """Say whether this area may leave: everyone has what it needs, and has had time to hear so."""
        exchange = self._exchange
        if self._halt in (RUNNING, DECIDED):
            return self._halt == DECIDED and exchange.forsaken
        if self._settled_at == 0:
            self._settled_at = exchange.slot
        others = exchange.halts()
        all_ended = all(h == SETTLED if self._halt == SETTLED else h != RUNNING for h in others)
        return all_ended or exchange.slot - self._settled_at >= self._transport.farewell_slots

    # ------------------------------------------------------------------ rounds

    def _step(self) -> None:
        """Take in the neighbours' last half-round and make the next one."""
        exchange, atom = self._exchange, self._atom
        inputs = exchange.inputs()
        for link, packet in zip(atom.part.links, inputs, strict=bool(inputs)):
            atom.hear(self._told, link, packet.values)
        if exchange.half:
            self._pass_on(inputs)
            if self._halt != RUNNING:
                return
        atom = self._atom
        self._told = "primal" if self._told == "dual" else "dual"
        values = atom.primal() if self._told == "primal" else atom.dual()
        if self._told == "dual" and atom.rounds == self._next_look:
            self._poll = _Poll("look", np.array(atom.look()))
        exchange.put(values, NOTHING if self._poll is None else self._poll.largest)

    def _pass_on(self, inputs: Sequence[Packet]) -> None:
        """Take in the neighbours' maxima, and decide when those of the farthest area are among them."""
        poll = self._poll
        if poll is None:
            return
        if any(len(packet.verdict) != len(poll.largest) for packet in inputs):
            raise FederationError(f"area {self.area} and its neighbours look at different rounds")
        poll.largest = np.maximum.reduce([poll.largest, *(packet.verdict for packet in inputs)])
        poll.hops += 1
        if poll.hops == 1 and poll.kind == "look":
            self._atom.keep()
        if poll.hops == self._reach:
            self._poll = None
            if poll.kind == "look":
                self._decide(poll.largest)
            elif poll.largest[0] != -poll.largest[1]:
                # Not all areas end the same clearing: whoever has a state leaves it.
                self._mark = 0.0
                self._begin(self._cold_atom())

    def _look_after(self, rounds: int) -> int:
        """Return the round of the next look; what is on its way must have arrived by then."""
        stop = self._options.stop
        return max(min(rounds + stop.look_every, stop.max_rounds), rounds + self._reach // 2 + 1)

    # ------------------------------------------------------------------ decisions

    def _decide(self, largest: Array) -> None:
        look, at, stop = Look(*map(float, largest)), self._next_look, self._options.stop
        self._bend = look.bend_pu
        self._looks.append((self._rounds_before + at, *look[:2], look.price_change))
        verdict = self._judge.verdict(look)
        if verdict == "on" and at < stop.max_rounds:
            self._next_look = self._look_after(at)
            return
        self._atom.rewind()
        self._told = "dual"
        if verdict == "restart" and at < stop.max_rounds:
            self._atom.restart()
            self._next_look = self._look_after(at)
        elif verdict == "move" and self._points < POINT_LIMIT:
            self._move()
        elif verdict == "agreed":
            self._mark = float(crc32(np.array([self._mark, *largest]).tobytes()) + 1)
            self._halt = DECIDED
        else:
            self._halt = DECIDED
            self.failure = (
                f"areas not agreed after {self.rounds} rounds (consensus {look.consensus_pu:.1e}, equations "
                f"{look.rows_pu:.1e}, linearisation {self._bend:.1e} p.u.)"
            )

    def _move(self) -> None:
        """Go on at the point that the areas have agreed on."""
        atom = self._atom
        x, y = atom.agreed(), np.nan_to_num(atom.duals())
        point = self._tangents.moved(atom.point, x, y)
        following = AreaAtom(self._tangents, point, x, self._profile, self.area, self._options)
        if not np.array_equal(following.column, atom.column):
            raise InputError([Problem("area", "tangents", self.area, "programs of one structure")])
        following.begin(*atom.held())
        self._rounds_before += atom.rounds
        self._points += 1
        self._begin(following)

    def _begin(self, atom: AreaAtom[Point]) -> None:
        self._atom, self._judge, self._next_look = atom, Judge(self._options), self._look_after(0)
        self._told = "dual"

    def _cold_atom(self) -> AreaAtom[Point]:
        point, x = self._cold
        atom = AreaAtom(self._tangents, point, x, self._profile, self.area, self._options)
        atom.begin_at(x)
        return atom

    def _warm_atom(self, warm: AreaWarm[Point]) -> AreaAtom[Point]:
        atom = AreaAtom(self._tangents, warm.point, warm.x, self._profile, self.area, self._options)
        atom.begin(warm.a, warm.duals, warm.nu)
        return atom

    def solution(self) -> AreaSolution[Point]:
        """Return this area's part of where the areas ended. Raises FederationError before they have."""
        if self._halt == RUNNING:
            raise FederationError(f"area {self.area} has no solution yet")
        atom = self._atom
        own_column, own_row = atom.masks()
        warm = None
        if not self.failure:
            a, duals, nu = atom.held()
            warm = AreaWarm(self._mark, atom.column, a, duals, nu, atom.agreed(), atom.point)
        return AreaSolution(
            own_column=own_column, x=atom.x(), own_row=own_row, duals=atom.duals(), rounds=self.rounds,
            points=self._points, point=atom.point, program=atom.program,
            looks=np.array(self._looks).reshape(-1, 4), bend=self._bend, warm=warm,
        )  # fmt: skip


def _check(profile: Profile, area: int, method: MethodName, options: Options) -> None:
    """Raise InputError for what areas on their own cannot do."""
    names = np.unique(profile.atom_of_place)
    problems = []
    if method != "nst-pac":
        remedy = "nst-pac: the others are not built for federated transport"
        problems.append(Problem("areas", "method", method, remedy))
    if options.anderson:
        problems.append(Problem("areas", "anderson", options.anderson, "0: it would mix the areas' states"))
    if profile.by_period:
        problems.append(Problem("areas", "by_period", True, "areas that hold all periods of their places"))
    if not np.array_equal(names, np.arange(len(names))) or area not in names:
        problems.append(Problem("areas", "area", area, f"one of areas 0 to {len(names) - 1}, none left out"))
    if problems:
        raise InputError(problems)
