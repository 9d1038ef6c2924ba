"""Choosing the relays of one circuit (specs/07-directory-and-paths.md, "Choosing a path").

The final hop comes from the target's record, so the target may be hostile and knows whom it named. What it can see, the
middle and the final hop, is therefore drawn without regard to the guard and the vanguard.
"""

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass

from onionrelay.base.errors import NoPath, UsageError
from onionrelay.base.ids import RelayId
from onionrelay.base.limits import DEFAULT_HOPS, MAX_HOPS, MIN_HOPS
from onionrelay.base.seams import Rng, shuffle
from onionrelay.core.directory.descriptor import RelayEntry
from onionrelay.core.directory.reach import UsableFinal
from onionrelay.core.directory.table import RelayTable
from onionrelay.core.path.anonymity import clash
from onionrelay.core.path.candidates import Candidates
from onionrelay.core.path.groups import Side
from onionrelay.core.path.guards import Guards
from onionrelay.core.path.policy import Anonymity, PathPolicy

VANGUARD_HOPS = 4  # from this many relays on, the second one is a vanguard


@dataclass(frozen=True, slots=True)
class Path:
    """The relays of a circuit, in order. `last` is the final hop, or the storer that a question is for.

    `final` is set when `last` leads on to a target. `groups` is the number of address groups that `anonymity` rests on.
    """

    guard: RelayEntry
    vanguard: RelayEntry | None
    middles: tuple[RelayEntry, ...]
    last: RelayEntry
    final: UsableFinal | None
    anonymity: Anonymity
    groups: int

    @property
    def relays(self) -> tuple[RelayEntry, ...]:
        """All relays from the guard to the last."""
        return (self.guard, *((self.vanguard,) if self.vanguard else ()), *self.middles, self.last)

    @property
    def roles(self) -> tuple[str, ...]:
        """What people call each of `relays`, in the same order."""
        between = ("vanguard",) * (self.vanguard is not None) + ("middle",) * len(self.middles)
        return ("guard", *between, "final" if self.final else "storer")


def choose_path(
    table: RelayTable,
    finals: Sequence[UsableFinal],
    guards: Guards,
    rng: Rng,
    policy: PathPolicy,
    *,
    unix_now: int,
    hops: int = DEFAULT_HOPS,
    exclude: Container[RelayId] = frozenset(),
    candidates: Candidates | None = None,
) -> Path:
    """A path of `hops` relays to one of the final hops of a target's record, drawn at random.

    `exclude`: relays that failed just now; the guard is not excluded this way, see `Guards.on_failure`. `candidates`
    saves sorting the table again. Raises NoPath, which names the constraint that could not be met.
    """
    search = _Search(candidates or Candidates.of(table, policy, unix_now), guards, rng, hops, exclude)
    known = [final for final in finals if final.entry.relay_id not in exclude]
    if not known:
        raise NoPath(f"none of the target's {len(finals)} final hops is left to try")
    return search.run([(table.get(final.entry.relay_id) or final.entry, final) for final in known])


def choose_storer_path(
    table: RelayTable,
    storer: RelayEntry,
    guards: Guards,
    rng: Rng,
    policy: PathPolicy,
    *,
    unix_now: int,
    hops: int = DEFAULT_HOPS,
    exclude: Container[RelayId] = frozenset(),
    candidates: Candidates | None = None,
) -> Path:
    """A path of `hops` relays that ends at a relay which keeps records, to ask it or to hand it one.

    Raises NoPath; then another storer may still do. So it is when the storer is the guard in use: going there through
    the next guard would make that one known to this client's circuits, too.
    """
    search = _Search(candidates or Candidates.of(table, policy, unix_now), guards, rng, hops, exclude)
    return search.run([(storer, None)])


@dataclass(frozen=True, slots=True)
class _Search:
    candidates: Candidates
    guards: Guards
    rng: Rng
    hops: int
    exclude: Container[RelayId]

    def run(self, ends: list[tuple[RelayEntry, UsableFinal | None]]) -> Path:
        if not MIN_HOPS <= self.hops <= MAX_HOPS:
            raise UsageError(f"a path has {MIN_HOPS} to {MAX_HOPS} relays, not {self.hops}")
        rules = self.candidates.rules
        rules.require(self.candidates.policy.min_anonymity)
        shuffle(self.rng, ends)
        guards = self.guards.usable(self.candidates, self.rng)
        if guards and any(final is None and last.relay_id == guards[0].relay_id for last, final in ends):
            raise NoPath("the storer is the guard of this path")
        reasons: list[str] = []
        for guard, vanguard in self._openings(guards):
            far = self._far_half(ends, () if rules.sides else (guard, *((vanguard,) if vanguard else ())))
            if isinstance(far, str):
                reasons.append(far)
                continue
            middles, last, final = far
            return Path(guard, vanguard, middles, last, final, rules.level, rules.groups)
        raise NoPath(reasons[0] if reasons else self._no_opening())

    def _openings(self, guards: list[RelayEntry]) -> Iterator[tuple[RelayEntry, RelayEntry | None]]:
        """Guard and vanguard, best guard first. Where sides are kept apart the far half does not depend on the pair.

        In a small network the far half may need the very relays that are kept as vanguards: then others are drawn.
        """
        if self.hops < VANGUARD_HOPS:
            yield from ((guard, None) for guard in guards)
            return
        kept, given = self.guards.vanguards, (self.candidates, self.rng, self.exclude)
        for guard in guards:
            yield from ((guard, vanguard) for vanguard in kept.usable(guard, *given))
        for guard in guards if not self.candidates.rules.sides else ():
            while another := kept.another(guard, *given):
                yield guard, another

    def _no_opening(self) -> str:
        wait = self.guards.next_try(self.candidates.unix_now)
        if wait is not None:
            return f"no guard answers; the next try is in {wait} s"
        eligible, needed = self.candidates.guards, "guard"
        if len(eligible):
            eligible, needed = self.candidates.vanguards, "vanguard that does not clash with the guard"
        return f"no {needed} among the {eligible.group_count} address groups that may hold one"

    def _far_half(
        self, ends: list[tuple[RelayEntry, UsableFinal | None]], near: tuple[RelayEntry, ...]
    ) -> tuple[tuple[RelayEntry, ...], RelayEntry, UsableFinal | None] | str:
        """Middles and last relay for the first of `ends` that works, or why none does.

        `near` is empty where sides keep the halves apart; in a small network identities at least must differ.
        """
        taken = {entry.relay_id for entry in near}
        reason = ""
        for last, final in ends:
            if last.relay_id in taken:
                reason = reason or f"the {'final hop' if final else 'storer'} is the guard or vanguard of this path"
            elif self.candidates.rules.sides and last.side is not Side.FAR:
                reason = reason or f"the {'final hop' if final else 'storer'} is on the near side"
            elif middles := self._middles(last, taken):
                return middles, last, final
            else:
                reason = (
                    f"no middle relay left that keeps apart from the last one, "
                    f"among {self.candidates.middles.group_count} address groups"
                )
        return reason

    def _middles(self, last: RelayEntry, taken: set[RelayId]) -> tuple[RelayEntry, ...]:
        """As many middles as the path needs, apart from one another and from the last relay; empty if impossible."""
        chosen = [last]
        for _ in range(1 if self.hops <= VANGUARD_HOPS else self.hops - VANGUARD_HOPS + 1):
            middle = self.candidates.middles.draw(self.rng, self._fits(chosen, taken))
            if middle is None:
                return ()
            chosen.append(middle)
        return tuple(chosen[1:])

    def _fits(self, chosen: list[RelayEntry], taken: set[RelayId]) -> Callable[[RelayEntry], bool]:
        def fits(entry: RelayEntry) -> bool:
            apart = not any(clash(entry, other, self.candidates.rules) for other in chosen)
            return apart and entry.relay_id not in taken and entry.relay_id not in self.exclude

        return fits
