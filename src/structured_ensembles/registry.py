"""One kind of table for everything that has a name to type: what the library brings, and what plugins add."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Generic, TypeVar

from structured_ensembles.errors import SettingsError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

T = TypeVar("T")
A = TypeVar("A")


class Registry(Generic[T]):
    """Things by name: those of the library are imported when they are asked for, a plugin's are there already.

    Args:
        kind: What the names are of, as messages say it.
        room: Where in this package those of the library live.
        entries: By name, where in the room it lives (``module:attribute``), and half a sentence about it.
    """

    def __init__(self, kind: str, room: str, entries: Mapping[str, tuple[str, str]]) -> None:
        self.kind, self.room = kind, room
        self._places = {name: place for name, (place, _) in entries.items()}
        self._about = {name: about for name, (_, about) in entries.items()}
        self._added: dict[str, T] = {}

    def __iter__(self) -> Iterator[str]:
        """The names, those that were added last."""
        return iter(self._about)

    def __len__(self) -> int:
        return len(self._about)

    def __contains__(self, name: object) -> bool:
        return name in self._about

    def __getitem__(self, name: str) -> T:
        """What has the name.

        Raises:
            SettingsError: Nothing has; the nearest name is proposed.
        """
        self.check(name)
        if name in self._added:
            return self._added[name]
        module, attribute = self._places[name].split(":")
        found: T = getattr(importlib.import_module(f"{__package__}.{self.room}.{module}"), attribute)
        return found

    def check(self, name: str) -> None:
        """Refuse a name that nothing has, without importing anything.

        Raises:
            SettingsError: Nothing has it; the nearest name is proposed.
        """
        if name not in self:
            raise unknown(self.kind, name, self)

    def about(self, name: str) -> str:
        """Half a sentence; nothing about what nobody knows."""
        return self._about.get(name, "")

    def add(self, name: str, thing: T, about: str = "") -> None:
        """Give a thing a name.

        Raises:
            SettingsError: The name is taken, or is none.
        """
        if not name.strip() or ":" in name:
            raise SettingsError(f"{self.kind} {name!r}: use a name that is not empty, without a colon")
        if name in self:
            raise SettingsError(f"{self.kind} {name!r} is registered already: choose another name")
        self._added[name], self._about[name] = thing, about

    def register(self, name: str, about: str = "") -> Callable[[A], A]:
        """Decorate what gets the name; it stays what it was.

        Raises:
            SettingsError: The name is taken, or is none.
        """

        def decorate(thing: A) -> A:
            self.add(name, thing, about)  # type: ignore[arg-type]  # what is no T is refused where it is used
            return thing

        return decorate
