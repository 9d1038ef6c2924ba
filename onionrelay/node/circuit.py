"""A circuit as the node that built it sees it: its hops, the time to each of them, questions to its last one."""

import asyncio
import itertools
import math
import statistics
from typing import Protocol

import msgspec

from onionrelay.base.errors import Attempt, CircuitFailed, CircuitLost, MalformedMessage, NetworkError, TimedOut
from onionrelay.base.limits import ANSWER_TIMEOUT, ECHO_SAMPLES, ECHO_TIMEOUT
from onionrelay.core.circuit.engine import CircuitPlan
from onionrelay.core.circuit.origin import Origin
from onionrelay.core.link.channel import Channel
from onionrelay.core.path.policy import Anonymity
from onionrelay.node.driver import CircuitListener, Driver
from onionrelay.wire.build import BuildStatus
from onionrelay.wire.directory import RELAY_COMMANDS, Answer, Question, from_relay, to_relay
from onionrelay.wire.relay import RelayCmd

ANSWERS = frozenset({RelayCmd.DIR_DATA, RelayCmd.DHT_ANSWER}) & RELAY_COMMANDS.keys()
SCALED_MAD = 1.4826  # makes the median absolute deviation an estimate of the standard deviation
MEDIAN_ERROR = 1.2533  # standard error of a median against that of a mean
REQUEST_IDS = (1 << 16) - 1  # 0 belongs to the session

REASONS = {
    BuildStatus.CLOCK: "its clock and the network's, as known here, are more than ten minutes apart",
    BuildStatus.OVERLOADED: "it has more to do than it can",
    BuildStatus.POW_NEEDED: "it asks for a puzzle to be solved, and this version solves none",
    BuildStatus.BAD_RECORD: "it cannot do what it was told",
    BuildStatus.NEXT_UNREACHABLE: "it cannot reach {next}",
    BuildStatus.NEXT_ID_MISMATCH: "another relay answers in place of {next}",
    BuildStatus.NEXT_SILENT: "it gets no answer from {next}",
    BuildStatus.NO_SUCH_HANDLE: "the node is not attached there, or no longer",
    BuildStatus.TARGET_REFUSED: "it takes no more circuits",
    BuildStatus.TICKET: "the ticket from the node's record is not the one that the node left there",
    BuildStatus.POLICY: "it does not take on what it was asked to do",
    BuildStatus.LIFETIME: "it does not hold circuits for that long",
    BuildStatus.NEXT_REFUSED: "{next} refused, as after a restart, when it has new keys, or in overload",
}
"""What a hop that refuses a build means by its status; `{next}` is the hop behind it."""


class HopInfo(msgspec.Struct, frozen=True):
    """One hop of a circuit. `position` counts from 1; the target has neither relay id nor address here."""

    position: int
    role: str
    relay_id: str | None = None
    address: str | None = None

    def __str__(self) -> str:
        return f"{self.role} {self.address or ''}".rstrip()


class HopTiming(msgspec.Struct, frozen=True):
    """What `samples` echoes from one hop took.

    `median_ms` there and back over all hops before it; `added_ms` what this hop adds to the one before it, with
    `error_ms` as the standard error of that difference.
    """

    position: int
    median_ms: float
    added_ms: float
    error_ms: float
    samples: int


class SessionListener(Protocol):
    """Who takes the session packets of a circuit: see `node.streams`."""

    def on_packet(self, data: bytes) -> None:
        """One packet arrived."""
        ...

    def on_room(self) -> None:
        """Packets can be sent again."""
        ...

    def on_lost(self, why: str) -> None:
        """The circuit is gone. Last call."""
        ...


class Circuit(CircuitListener):
    """An open circuit. Close it with `close`, or learn of its end from `wait_lost`."""

    def __init__(self, driver: Driver, hops: tuple[HopInfo, ...], anonymity: Anonymity) -> None:
        """Use `Circuit.open`."""
        self.hops = hops
        self.anonymity = anonymity
        self.build_time = 0.0
        self.session: SessionListener | None = None
        self._driver = driver
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._lost: asyncio.Future[str] = self._loop.create_future()
        self._requests = itertools.count()
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._echoes: dict[tuple[int, int], tuple[float, asyncio.Future[float]]] = {}
        self.origin: Origin

    @classmethod
    async def open(
        cls, driver: Driver, channel: Channel, plan: CircuitPlan, hops: tuple[HopInfo, ...], anonymity: Anonymity
    ) -> "Circuit":
        """Builds the planned circuit over a guard link. `hops` describes the plan's hops, in the same order.

        Raises CircuitFailed with the hop and the reason. When cancelled, the half-built circuit is destroyed.
        """
        circuit = cls(driver, hops, anonymity)
        begun = circuit._loop.time()
        try:
            circuit.origin = driver.open_circuit(channel, plan, circuit)
        except NetworkError as error:
            raise circuit._failure(1, str(error)) from error
        try:
            await circuit._opened
        except BaseException:
            driver.close_circuit(circuit.origin)
            raise
        if circuit._lost.done():
            raise circuit._failure(0, circuit._lost.result())
        circuit.build_time = circuit._loop.time() - begun
        return circuit

    @property
    def is_open(self) -> bool:
        """Whether it still carries anything."""
        return self._opened.done() and not self._lost.done()

    def close(self) -> None:
        """Destroys the circuit; whatever runs over it ends with CircuitLost."""
        if not self._lost.done():
            self._driver.close_circuit(self.origin)
            self.on_ended("closed at this end")

    async def wait_lost(self) -> str:
        """Waits for the circuit's end and says why it came."""
        return await asyncio.shield(self._lost)

    async def ping(self, samples: int = ECHO_SAMPLES) -> tuple[HopTiming, ...]:
        """The time to every hop, from `samples` echoes each, in turn, so that a slow moment touches all hops alike.

        Raises CircuitLost, or TimedOut for an echo that does not come.
        """
        times: list[list[float]] = [[] for _ in self.hops]
        for hop in self.hops:  # the first echo of a hop pays for what the later ones find warm
            await self.echo(hop.position)
        for _ in range(samples):
            for hop in self.hops:
                times[hop.position - 1].append(await self.echo(hop.position))
        return timings(times)

    async def echo(self, position: int) -> float:
        """Seconds until hop `position` has sent eight bytes back."""
        self._require_open()
        rid = 1 + next(self._requests) % REQUEST_IDS
        answer: asyncio.Future[float] = self._loop.create_future()
        self._echoes[position, rid] = (self._loop.time(), answer)
        try:
            self.origin.send(RelayCmd.ECHO, rid.to_bytes(8, "big"), hop=position, rid=rid)
            self._driver.settle()
            async with asyncio.timeout(ECHO_TIMEOUT):
                return await answer
        except TimeoutError:
            raise TimedOut(f"the echo of hop {position}", ECHO_TIMEOUT) from None
        finally:
            del self._echoes[position, rid]

    async def ask(self, question: Question) -> Answer:
        """Asks the last hop. Raises CircuitLost, or TimedOut when no answer comes."""
        self._require_open()
        rid = 1 + next(self._requests) % REQUEST_IDS
        answer: asyncio.Future[Answer] = self._loop.create_future()
        self._answers[rid] = answer
        try:
            cmd, data = to_relay(question)
            self.origin.send(cmd, data, rid=rid)
            self._driver.settle()
            async with asyncio.timeout(ANSWER_TIMEOUT):
                return await answer
        except TimeoutError:
            raise TimedOut(f"the answer of {self.hops[-1]}", ANSWER_TIMEOUT) from None
        finally:
            del self._answers[rid]

    def _require_open(self) -> None:
        if not self.is_open:
            raise CircuitLost(self._lost.result() if self._lost.done() else "the circuit is not open yet")

    # What the driver tells

    def on_opened(self) -> None:
        """See OpeningListener."""
        if not self._opened.done():
            self._opened.set_result(None)

    def on_refused(self, hop: int, status: BuildStatus | None, why: str) -> None:
        """See OpeningListener."""
        if not self._opened.done():
            self._opened.set_exception(self._failure(hop, why, status))

    def _failure(self, hop: int, why: str, status: BuildStatus | None = None) -> CircuitFailed:
        """Names the hop, or, when it cannot be said which it was, the last relay: what tells this path from others."""
        named = self.hops[hop - 1] if hop else [each for each in self.hops if each.relay_id][-1]
        word = status.name.lower().replace("_", " ") if status else ""
        if status:
            following = f"hop {hop + 1} ({self.hops[hop]})" if hop < len(self.hops) else "the next hop"
            why = f"{word}: {REASONS[status].format(next=following)}"
        return CircuitFailed("the circuit was not built", [Attempt(hop, named.address or "", named.role, why, word)])

    def on_message(self, hop: int, cmd: int, rid: int, data: bytes) -> None:
        """See CircuitListener. What nobody waits for any more is dropped: an answer may lose against its time limit."""
        if cmd == RelayCmd.SESS and self.session is not None:
            self.session.on_packet(data)
        elif cmd == RelayCmd.ECHOED and (echo := self._echoes.get((hop, rid))):
            sent, answer = echo
            if not answer.done():
                answer.set_result(self._loop.time() - sent)
        elif cmd in ANSWERS and hop == len(self.hops) and (waiting := self._answers.get(rid)):
            self._take_answer(waiting, cmd, data)

    def _take_answer(self, waiting: "asyncio.Future[Answer]", cmd: int, data: bytes) -> None:
        if waiting.done():
            return
        try:
            answer = from_relay(cmd, data)
        except MalformedMessage as error:
            waiting.set_exception(error)
            return
        if isinstance(answer, Answer):
            waiting.set_result(answer)
        else:
            waiting.set_exception(MalformedMessage("a question where an answer belongs"))

    def on_room(self) -> None:
        """See CircuitListener."""
        if self.session is not None:
            self.session.on_room()

    def on_ended(self, why: str) -> None:
        """See CircuitListener."""
        if self._lost.done():
            return
        self._lost.set_result(why)
        waiting: list[asyncio.Future[Answer] | asyncio.Future[float]] = [*self._answers.values()]
        waiting += [answer for _, answer in self._echoes.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(CircuitLost(why))
        if self.session is not None:
            self.session.on_lost(why)


def timings(times: list[list[float]]) -> tuple[HopTiming, ...]:
    """From the seconds of each hop's echoes, in path order, to medians and the differences between neighbours."""
    found: list[HopTiming] = []
    before, error_before = 0.0, 0.0
    for position, seconds in enumerate(times, 1):
        median = statistics.median(seconds)
        deviation = statistics.median(abs(second - median) for second in seconds)
        error = SCALED_MAD * MEDIAN_ERROR * deviation / math.sqrt(len(seconds))
        found.append(
            HopTiming(
                position=position,
                median_ms=median * 1e3,
                added_ms=(median - before) * 1e3,
                error_ms=math.hypot(error, error_before) * 1e3,
                samples=len(seconds),
            )
        )
        before, error_before = median, error
    return tuple(found)
