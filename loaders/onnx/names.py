"""The names that a node of an ONNX graph sees: its graph's own, and those of the graphs around."""

from __future__ import annotations


class Names:
    """Which tensor stands behind a name; what an inner graph says is forgotten at its end."""

    def __init__(self) -> None:
        self._visible: dict[str, str] = {}
        self._hidden: list[dict[str, str | None]] = []
        """For each graph that was entered, what its names stood for around it."""

    @property
    def depth(self) -> int:
        """Graphs that were entered and not left."""
        return len(self._hidden)

    def enter(self) -> None:
        """Begin a graph."""
        self._hidden.append({})

    def leave(self) -> None:
        """End a graph."""
        hidden = self._hidden.pop()
        if not self._hidden:
            self._visible.clear()
        for name, before in hidden.items():
            if before is None:
                del self._visible[name]
            else:
                self._visible[name] = before

    def say(self, name: str, tensor: str) -> None:
        """From here on, `name` stands for `tensor`."""
        if len(self._hidden) > 1:  # around the outermost graph there is nothing to come back to
            self._hidden[-1].setdefault(name, self._visible.get(name))
        self._visible[name] = tensor

    def get(self, name: str) -> str | None:
        """The tensor behind a name, or None where a computation is."""
        return self._visible.get(name)
