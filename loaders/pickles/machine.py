"""Reading pickles without running them: a machine that builds inert nodes and calls nothing.

Python's own unpickler imports and calls whatever a file names; even one that is told which names
are safe takes gigabytes for a memo index of nine bytes, and cannot be stopped after some opcodes.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from ..budget import Budget
from ..errors import PickleError, UnsafeGlobalError
from ..strict_json import brief
from .containers import PickleContainers
from .globals import NEW_OBJECT, RECONSTRUCTORS, culprit
from .nodes import Global, Instance, Persistent, named
from .opcodes import NAMES, REFUSED, STOP, WEIGHTS
from .paths import path_to

_GLOBAL_BYTES = 600  # a name that is new: two texts, a token, a place in the table of them


class PickleMachine(PickleContainers):
    """Reads pickles out of one file, all of them under one budget.

    `persistent` makes what stands for a persistent id. With `inert`, calls of unknown functions
    stay in the tree as nodes instead of being refused.
    """

    def __init__(
        self,
        path: Path,
        budget: Budget,
        *,
        inert: bool = False,
        persistent: Callable[[Any, int], Any] = Persistent,
    ) -> None:
        super().__init__(path, budget)
        self._inert, self._persistent = inert, persistent
        self._globals: dict[tuple[str, str], Global] = {}
        self._suspect: tuple[Instance, Global] | None = None
        self._handlers: list[Callable[[], None]] = [self._refuse] * 256
        for opcode, name in NAMES.items():
            self._handlers[opcode] = getattr(self, f"_{name}")

    def load_whole(
        self,
        data: bytes | mmap.mmap,
        start: int = 0,
        end: int | None = None,
        what: str = "the pickle",
    ) -> Any:
        """The root of the one pickle that fills `data[start:end]`.

        Raises
        ------
        loaders.errors.PickleError, UnsafeGlobalError, BudgetError
            Each names the file, what is wrong, and the byte.
        """
        root, stopped = self.load(data, start, end, what)
        if stopped != self._end:
            raise self._error(f"has {self._end - stopped} bytes after its end")
        return root

    def load(
        self,
        data: bytes | mmap.mmap,
        start: int = 0,
        end: int | None = None,
        what: str = "the pickle",
    ) -> tuple[Any, int]:
        """The root of the pickle that starts at `data[start]`, and where it ends."""
        self._open(data, start, end, what)
        self._clear()
        self._suspect = None
        try:
            root = self._run()
        except PickleError:
            self._check_safe(None)
            raise
        self._check_safe(root)
        self._clear()
        return root, self._at

    def _run(self) -> Any:
        data, end, handlers, limit = self._data, self._end, self._handlers, self.budget.opcodes
        try:
            while self._at < end:
                opcode = data[self._at]
                self._opcode = self._at
                self._at += 1
                self.spent += WEIGHTS[opcode]
                if self.spent > limit:
                    self.budget.check("opcodes", self.spent, self.path)
                if opcode == STOP:
                    return self._top()
                handlers[opcode]()
        except IndexError:
            raise self._error("takes more from the stack than there is") from None
        raise self._error("ends without its last opcode")

    def _refuse(self) -> NoReturn:
        opcode = self._data[self._opcode]
        name = REFUSED.get(opcode, f"0x{opcode:02x}")
        raise self._error(f"has the opcode {name}, which is not read")

    def _check_safe(self, root: Any) -> None:
        if self._suspect is None or self._inert:
            return
        node, name = self._suspect
        place = path_to(root, node)
        where = f"for {brief(place)}, " if place else ""
        raise UnsafeGlobalError(
            f"{self.path}: {self._what} calls {brief(str(name))}, {where}at byte {node.at}; "
            "it was not run. If you need only the tensors: load(path, inert=True)"
        )

    def _global(self) -> None:
        module = self._name(self._line())
        self._push_global(module, self._name(self._line()))

    def _stack_global(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if type(name) is not str or type(module) is not str:
            raise self._error("names a class by what is no text")
        self._push_global(module, name)

    def _name(self, line: bytes) -> str:
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError:
            raise self._error("has a name that is not UTF-8") from None

    def _push_global(self, module: str, name: str) -> None:
        known = self._globals.get((module, name))
        if known is None:
            self._charge(_GLOBAL_BYTES)
            known = self._globals[module, name] = named(module, name)
        self._stack.append(known)

    def _binpersid(self) -> None:
        self._stack.append(self._persistent(self._stack.pop(), self._opcode))

    def _reduce(self) -> None:
        args = self._stack.pop()
        self._call(self._stack.pop(), args)

    def _inst(self) -> None:
        self._global()
        function = self._stack.pop()
        self._call(function, tuple(self._marked()))

    def _obj(self) -> None:
        marked = self._marked()
        self._call(marked[0], tuple(marked[1:]))

    def _newobj_ex(self) -> None:
        options, args = self._stack.pop(), self._stack.pop()
        if type(args) is not tuple:
            raise self._error("calls with arguments that are no tuple")
        self._call(self._stack.pop(), (*args, options))

    def _newobj(self) -> None:
        args = self._stack.pop()
        self._make(self._stack.pop(), args, called=False)

    def _call(self, function: Any, args: Any) -> None:
        called = True
        if type(function) is Global and function in RECONSTRUCTORS and type(args) is tuple:
            called = culprit(function, args) is not None
        if called:
            self._make(function, args, called=True)
        else:
            inner = args[1:] if function == NEW_OBJECT else ()
            self._make(args[0] if args else None, inner, called=False)

    def _make(self, function: Any, args: Any, *, called: bool) -> None:
        if type(function) is not Global or type(args) is not tuple:
            raise self._error("calls what is no name, or with arguments that are no tuple")
        node = Instance(function, args, self._opcode, called)
        name = culprit(function, args) if called else None
        if name is not None and self._suspect is None:
            self._suspect = node, name
        self._stack.append(node)

    def _build(self) -> None:
        state = self._stack.pop()
        node = self._stack[-1]
        if type(node) is not Instance or node.state is not None:
            raise self._error(f"sets the state of {brief(node)}, which is no new object")
        node.state = state
