"""The containers of a pickle: filled only where they are lists, sets and dicts indeed."""

from __future__ import annotations

from typing import Any

from ..strict_json import brief
from .globals import FROZENSET, MAPPINGS, SEQUENCES, SET
from .nodes import Global, Instance, Persistent, TupleKey
from .stack import PickleStack

_INT_KEYS = range(-(1 << 63), 1 << 63)  # longer ones can be chosen so that all hashes are equal
_KEYS = frozenset((str, bool, float, bytes, type(None), Global, Instance, Persistent))


class PickleContainers(PickleStack):
    """The opcodes that make containers and fill them."""

    def _empty_tuple(self) -> None:
        self._stack.append(())

    def _empty_list(self) -> None:
        self._stack.append([])

    def _empty_dict(self) -> None:
        self._stack.append({})

    def _empty_set(self) -> None:
        self._stack.append(Instance(SET, (), self._opcode, True, items=[]))

    def _tuple(self) -> None:
        self._pushed(tuple(self._marked()))

    def _tuple1(self) -> None:
        self._stack.append((self._stack.pop(),))

    def _tuple2(self) -> None:
        last = self._stack.pop()
        self._stack.append((self._stack.pop(), last))

    def _tuple3(self) -> None:
        last, middle = self._stack.pop(), self._stack.pop()
        self._stack.append((self._stack.pop(), middle, last))

    def _list(self) -> None:
        self._pushed(self._marked())

    def _dict(self) -> None:
        items = self._marked()
        self._stack.append({})
        self._store(items)

    def _frozenset(self) -> None:
        items = self._marked()
        self._stack.append(Instance(FROZENSET, (), self._opcode, True, items=items))

    def _append(self) -> None:
        self._add([self._stack.pop()])

    def _appends(self) -> None:
        self._add(self._marked())

    def _additems(self) -> None:
        items = self._marked()
        if type(self._stack[-1]) is not Instance:
            raise self._error("adds elements to what is no set")
        self._add(items)

    def _add(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is Instance and (not target.called or target.function in SEQUENCES):
            target.items = target.items or []
            target = target.items
        if type(target) is not list:
            raise self._error("appends to what is no list")
        target += items

    def _setitem(self) -> None:
        value = self._stack.pop()
        self._store([self._stack.pop(), value])

    def _setitems(self) -> None:
        self._store(self._marked())

    def _store(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is Instance and (not target.called or target.function in MAPPINGS):
            target.entries = target.entries or {}
            target = target.entries
        if type(target) is not dict or len(items) % 2:
            raise self._error("sets keys of what is no dict, or a key without a value")
        self._charge(24 * len(items))
        expected = len(target) + len(items) // 2
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[key if type(key) is str else self._key(key)] = value
        if len(target) != expected:
            raise self._error(f"gives a dict the same key twice, among them {brief(items[0])}")

    def _key(self, key: Any) -> Any:
        """`key` as the key of a dict, if hashing it costs nothing."""
        kind = type(key)
        if kind in _KEYS:
            return key
        if kind is int:
            return key if key in _INT_KEYS else TupleKey((key,))
        if kind is tuple:
            return TupleKey(key)
        raise self._error(f"has a dict with the key {brief(key)}, which is not read")
