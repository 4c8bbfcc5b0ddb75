"""The order and the extent of tuning: which config is timed next, and when it is enough.

Knows no GPU: a `Bench` times, and tests have a fake one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from convt.records import Layer, Record

ATEN = "aten"
# A config whose modelled time is over this multiple of the best one's is not timed.
WORTH_TRYING = 4.0


class Candidate(NamedTuple):
    """A compiled config, its modelled time in microseconds, and the family it is of."""

    config: str
    us: float
    family: str


class Bench(Protocol):
    """Times configs of one layer on one GPU."""

    def candidates(self) -> Sequence[Candidate]:
        """Every compiled config that can run the layer, ATen excepted."""

    def chosen(self) -> str:
        """The config that convt runs the layer with now, or "aten"."""

    def time(self, config: str, limit: float) -> float | None:
        """Microseconds of `config`; None if it fails. Above `limit` a rough time is enough."""


class Call(NamedTuple):
    """A layer of a run: what it is called there, and how often it is called."""

    layer: Layer
    name: str
    calls: int = 1


class Result(NamedTuple):
    """The result of tuning one layer; times in microseconds."""

    call: Call
    aten_us: float
    before: str
    before_us: float
    after: str
    after_us: float
    records: tuple[Record, ...]


class Failure(NamedTuple):
    """A layer that could not be timed, and why."""

    call: Call
    why: str


def tune_layer(call: Call, bench: Bench, seconds: float, clock: Callable[[], float]) -> Result:
    """Times ATen, then what is chosen now, then the other candidates while there is time.

    Next is always the most promising: modelled time x the family's smallest measured / modelled
    time so far. `seconds` are for them: ATen comes on top, and one of them is timed in any case.
    """
    aten_us = bench.time(ATEN, float("inf"))
    if aten_us is None:
        raise RuntimeError("ATen failed")
    end = clock() + seconds
    candidates = bench.candidates()
    before = bench.chosen()
    bound = WORTH_TRYING * min((candidate.us for candidate in candidates), default=0.0)
    todo = {c for c in candidates if c.us <= bound or c.config == before}
    corrections: dict[str, float] = {}
    times: dict[str, float] = {}

    def order(candidate: Candidate) -> tuple[bool, float, str]:
        expected = candidate.us * corrections.get(candidate.family, 1.0)
        return candidate.config != before, expected, candidate.config

    while todo and (not times or clock() < end):
        candidate = min(todo, key=order)
        todo.remove(candidate)
        us = bench.time(candidate.config, 2 * min([aten_us, *times.values()]))
        if us is not None:
            times[candidate.config] = us
            correction = us / candidate.us
            corrections[candidate.family] = min(
                corrections.get(candidate.family, correction), correction
            )
    after, after_us = min([(ATEN, aten_us), *times.items()], key=lambda item: item[1])
    return Result(
        call=call,
        aten_us=aten_us,
        before=before,
        before_us=times.get(before, aten_us),
        after=after,
        after_us=after_us,
        records=tuple(Record(call.layer, config, us, aten_us) for config, us in times.items()),
    )


def tune_layers(
    calls: Sequence[Call],
    bench_of: Callable[[Layer], Bench],
    budget: float,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Result | Failure]:
    """Yields the result for each layer in turn, until `budget` (seconds) is used up.

    Each may use an equal share of what is left of it.
    """
    end = clock() + budget
    for done, call in enumerate(calls):
        left = end - clock()
        if left <= 0:
            return
        try:
            yield tune_layer(call, bench_of(call.layer), left / (len(calls) - done), clock)
        except RuntimeError as error:  # out of memory, for example: the next layer may fit
            yield Failure(call, " ".join(str(error).split()))
