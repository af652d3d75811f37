"""The stack and the memo of a pickle, and the scalars that are pushed."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

from ..budget import Budget
from .reader import PickleReader
from .text import float_of, int_of, python2_text, string_of, unicode_of

_LONGEST_LONG4 = 16
_ESCAPED = 12  # bytes that an escaped one takes while it is decoded
_NOTHING: Any = object()


class PickleStack(PickleReader):
    """The opcodes that make no container and name no class."""

    def __init__(self, path: Path, budget: Budget) -> None:
        super().__init__(path, budget)
        self._clear()

    def _clear(self) -> None:
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: list[Any] = []

    def _top(self) -> Any:
        """The only value on the stack."""
        if len(self._stack) != 1 or self._below:
            raise self._error(f"leaves {len(self._stack)} values on the stack")
        return self._stack[0]

    def _marked(self) -> list[Any]:
        """What was pushed since the last mark."""
        items, self._stack = self._stack, self._below.pop()
        return items

    def _pushed(self, value: Any) -> None:
        self._stack.append(value)

    def _proto(self) -> None:
        (version,) = self._take(1)
        if version > 5 or self._opcode != self._start:
            raise self._error(f"names protocol {version}")

    def _frame(self) -> None:
        if self._natural(8) > self._end - self._at:
            raise self._error("has a frame that ends after the file")

    def _mark(self) -> None:
        if len(self._below) >= self.budget.nesting:
            self.budget.check("nesting", len(self._below) + 1, self.path)
        self._below.append(self._stack)
        self._stack = []

    def _pop(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._marked()

    def _pop_mark(self) -> None:
        self._marked()

    def _dup(self) -> None:
        self._stack.append(self._stack[-1])

    def _remember(self, index: int) -> None:
        if index == len(self._memo):
            self._memo.append(self._stack[-1])
            return
        self._reserve(index)
        self._memo[index] = self._stack[-1]

    def _reserve(self, index: int) -> None:
        """Room in the memo up to `index`, which no honest file leaves out many of."""
        if index > self.spent:
            raise self._error(f"puts into place {index} of the memo, after too few opcodes")
        missing = max(0, index + 1 - len(self._memo))
        self._charge(8 * missing)
        self._memo += [_NOTHING] * missing

    def _recall(self, index: int) -> None:
        value = self._memo[index] if index < len(self._memo) else _NOTHING
        if value is _NOTHING:
            raise self._error(f"gets place {index} of the memo, which is empty")
        self._stack.append(value)

    def _memoize(self) -> None:
        self._memo.append(self._stack[-1])

    def _put(self) -> None:
        self._remember(self._index())

    def _binput(self) -> None:
        self._remember(self._natural(1))

    def _long_binput(self) -> None:
        self._remember(self._natural(4))

    def _get(self) -> None:
        self._recall(self._index())

    def _binget(self) -> None:
        self._recall(self._natural(1))

    def _long_binget(self) -> None:
        self._recall(self._natural(4))

    def _index(self) -> int:
        index = self._parsed(int_of)
        if index < 0:
            raise self._error("has a negative place in the memo")
        return int(index)

    def _none(self) -> None:
        self._stack.append(None)

    def _newtrue(self) -> None:
        self._stack.append(True)

    def _newfalse(self) -> None:
        self._stack.append(False)

    def _binint(self) -> None:
        self._stack.append(int.from_bytes(self._take(4), "little", signed=True))

    def _binint1(self) -> None:
        self._stack.append(self._natural(1))

    def _binint2(self) -> None:
        self._stack.append(self._natural(2))

    def _long1(self) -> None:
        self._long(self._natural(1))  # the state of a random generator is one of 17 bytes

    def _long4(self) -> None:
        count = self._natural(4)
        if count > _LONGEST_LONG4:
            raise self._error(f"has an integer of {count} bytes")
        self._long(count)

    def _long(self, count: int) -> None:
        self._stack.append(int.from_bytes(self._sized(count), "little", signed=True))

    def _binfloat(self) -> None:
        self._stack.append(struct.unpack(">d", self._take(8))[0])

    def _int(self) -> None:
        line = self._data[self._at : self._at + 3]
        if line in (b"00\n", b"01\n"):
            self._at += 3
            self._stack.append(line == b"01\n")
        else:
            self._stack.append(self._parsed(int_of))

    def _long_text(self) -> None:
        self._stack.append(self._parsed(int_of))

    def _float(self) -> None:
        self._stack.append(self._parsed(float_of))

    def _string(self) -> None:
        raw = self._parsed(string_of, self._end)
        self._charge(_ESCAPED * len(raw))
        self._stack.append(python2_text(raw))

    def _unicode(self) -> None:
        text = self._parsed(unicode_of, self._end)
        self._charge(sys.getsizeof(text))
        self._stack.append(text)

    def _binstring(self) -> None:
        self._stack.append(python2_text(self._sized(self._natural(4))))

    def _short_binstring(self) -> None:
        self._stack.append(python2_text(self._sized(self._natural(1))))

    def _short_binunicode(self) -> None:
        self._stack.append(self._text(self._natural(1)))

    def _binunicode(self) -> None:
        self._stack.append(self._text(self._natural(4)))

    def _binunicode8(self) -> None:
        self._stack.append(self._text(self._natural(8)))

    def _short_binbytes(self) -> None:
        self._stack.append(self._octets(self._natural(1)))

    def _binbytes(self) -> None:
        self._stack.append(self._octets(self._natural(4)))

    def _binbytes8(self) -> None:
        self._stack.append(self._octets(self._natural(8)))

    def _bytearray8(self) -> None:
        self._stack.append(self._octets(self._natural(8)))
