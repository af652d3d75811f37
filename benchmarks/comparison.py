"""Run both sides of a case in turn, and compare what they took."""

import time
from collections.abc import Callable
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

    @property
    def speed(self) -> float:
        """The peer's time over ours: the median of the ratios of the pairs."""
        return self._median_ratio(lambda ours, peer: peer.seconds / ours.seconds)

    @property
    def memory(self) -> float:
        """Our peak memory over the peer's: the median of the ratios of the pairs."""
        return self._median_ratio(lambda ours, peer: ours.peak_bytes / peer.peak_bytes)

    @property
    def met(self) -> bool:
        """Whether all that the case asked was reached."""
        light = self.case.memory is None or self.memory <= self.case.memory
        return light and self.speed >= self.case.speed

    @property
    def steady(self) -> bool:
        """Whether the times of each side lie close together, as on a machine left to itself.

        Threads that wait for one another lose far more than their share of the processor to other
        work, so a ratio taken beside other work can be wrong in either direction.
        """
        return all(
            max(seconds) <= STEADY * min(seconds)
            for seconds in ([s.seconds for s in side] for side in (self.ours, self.peer))
        )

    def _median_ratio(self, ratio: Callable[[Sample, Sample], float]) -> float:
        return median(map(ratio, self.ours, self.peer))


def compare(case: Case) -> Comparison:
    """Run both sides of a case alternately."""
    with case.timer(case.ours) as ours, case.timer(case.peer) as peer:
        for _ in range(case.discarded):
            run_pair(ours, peer)
        pairs = [run_pair(ours, peer) for _ in range(case.runs)]
    first, second = zip(*pairs, strict=True)
    return Comparison(case=case, ours=first, peer=second)


def run_pair(ours: Run, peer: Run) -> tuple[Sample, Sample]:
    """Run each side once, ours first."""
    return rested(ours), rested(peer)


def rested(run: Run) -> Sample:
    """Run once, after a pause."""
    time.sleep(PAUSE)
    return run()
