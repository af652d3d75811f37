"""How a measurement ended: one code in the arrays, one sentence for people."""

from __future__ import annotations

from enum import IntEnum

FIRST_FAILURE = 100


class Status(IntEnum):
    """Zero is success, up to 99 a remark on a valid number, from 100 on a failure.

    The code travels in the numerical records (int32, so that it passes through `jit` and `vmap`);
    `Status(code).sentence` is what a person reads.
    """

    sentence: str

    def __new__(cls, code: int, sentence: str = "") -> Status:
        member = int.__new__(cls, code)
        member._value_ = code
        member.sentence = sentence
        return member

    SUCCESS = 0, "success"
    THRESHOLD_HIDES = (
        1,
        "the threshold of 1e-5 hides more than 10 % of the eigenvalues from the fit "
        "(threshold='relative' shows them)",
    )
    RANK_DEFICIENT = 2, "eigenvalues under the rounding floor count as zero"
    ALPHA_AT_ONE = 3, "alpha stopped at its bound 1"
    ALPHA_AT_LEAST = 4, "alpha stopped at its bound -5"
    PLAIN_POWER_LAW = 5, "Lambda is 0: a plain power law"
    NOT_FINITE = (
        100,
        "failed: NaN or infinity in the weights, or their squares leave the range of the precision",
    )
    ALL_ZERO = 101, "failed: all weights are zero"
    TAIL_TOO_SHORT = 102, "failed: too few eigenvalues to fit a tail to"
    THRESHOLD_LEAVES_NONE = (
        104,
        "failed: the threshold of 1e-5 leaves too few eigenvalues to fit a tail to "
        "(threshold='relative' shows them)",
    )
    NO_START = 105, "failed: no eigenvalue lies where xmin is looked for"
    NOT_CONVERGED = 106, "failed: the search for the truncated power law did not converge"
    NO_BULK = 107, "failed: no Marchenko-Pastur law overlaps with the smoothed spectrum"
    NULL_SPACE = 109, "failed: more eigenvalues are zero up to rounding than noise would have"
    NO_TRACE_LOG = 108, "failed: the product of the eigenvalues that rounding resolves is over one"
    NO_TAIL = 103, "failed: the eigenvalues to fit are all equal"

    @property
    def failed(self) -> bool:
        """Whether the numbers beside this status are missing."""
        return self >= FIRST_FAILURE


def sentence(*codes: int) -> str:
    """One text for several codes: a failure alone, else success with its remarks."""
    statuses = sorted({Status(int(code)) for code in codes})
    failures = [status for status in statuses if status.failed]
    if failures:
        return failures[0].sentence
    remarks = [status.sentence for status in statuses if status is not Status.SUCCESS]
    return "; ".join([Status.SUCCESS.sentence, *remarks])
