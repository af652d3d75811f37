"""Run both sides of a case in turn, and compare what they took."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

from benchmarks.cases import Case
from benchmarks.timing import Run, Sample

PAUSE = 0.2
"""Seconds of rest before each run: the threads of the run before it spin on for a while."""

STEADY = 1.5
"""The largest time of one side over its smallest, above which the machine was not left alone."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The samples of a case: each of ours beside the one of the peer that followed it."""

    case: Case
    ours: tuple[Sample, ...]
    peer: tuple[Sample, ...]
    """Empty where there is no peer."""

    @property
    def speed(self) -> float:
        """The peer's time over ours: the median of the ratios of the pairs."""
        return self._median_ratio(lambda ours, peer: peer.seconds / ours.seconds)

    @property
    def seconds(self) -> float:
        """Our time: the median."""
        return median(sample.seconds for sample in self.ours)

    @property
    def memory(self) -> float:
        """Our peak memory over the peer's: the median of the ratios of the pairs."""
        return self._median_ratio(lambda ours, peer: ours.peak_bytes / peer.peak_bytes)

    @property
    def met(self) -> bool:
        """Whether all that the case asked was reached."""
        case = self.case
        light = case.memory is None or self.memory <= case.memory
        ahead = case.speed is None or self.speed >= case.speed
        in_time = case.seconds is None or self.seconds <= case.seconds
        return light and ahead and in_time

    @property
    def steady(self) -> bool:
        """Whether the times of each side lie close together, as on a machine left to itself.

        Threads that wait for one another lose far more than their share of the processor to other
        work, so a ratio taken beside other work can be wrong in either direction.
        """
        sides = [[s.seconds for s in side] for side in (self.ours, self.peer) if side]
        return all(max(seconds) <= STEADY * min(seconds) for seconds in sides)

    def _median_ratio(self, ratio: Callable[[Sample, Sample], float]) -> float:
        return median(map(ratio, self.ours, self.peer))


def compare(case: Case) -> Comparison:
    """Run both sides of a case alternately, or ours alone where it has no peer."""
    with ExitStack() as open_sides:
        commands = (case.ours, *([case.peer] if case.peer else []))
        sides = [open_sides.enter_context(case.timer(command)) for command in commands]
        for _ in range(case.discarded):
            run_all(sides)
        samples = zip(*[run_all(sides) for _ in range(case.runs)], strict=True)
    ours, *peers = samples
    return Comparison(case=case, ours=ours, peer=peers[0] if peers else ())


def run_all(sides: Sequence[Run]) -> tuple[Sample, ...]:
    """Run each side once, ours first, after a pause."""
    samples = []
    for run in sides:
        time.sleep(PAUSE)
        samples.append(run())
    return tuple(samples)
