"""How a setting is described, once: what it does, its limits, and its name where it is typed.

A setting is a field of a frozen dataclass. The check of its value, its line in the command's help and its key in a
configuration file follow from the description.
"""

from __future__ import annotations

import dataclasses
import operator
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from numbers import Real
from typing import TYPE_CHECKING, Any

from structured_ensembles.errors import SettingsError, unknown
from structured_ensembles.options.choices import Choice

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_KEY = "described"


@dataclass(frozen=True)
class Described:
    """What is known of one setting beside its type and its value.

    Attributes:
        help: What it does, in a sentence or two.
        limit: Which numbers are allowed, as an interval: ``(0, 1]``, ``[1, inf)``.
        rule: How a message that refuses a number ends; made of the interval if empty.
        key: Its name on the command line and in a file; the field's own if empty.
        called: What a message calls it; the field's own name if empty.
        section: Under which title the help lists it; that of the part that it belongs to if empty.
        among: Which of the choices are taken here; all of them if empty.
        seeds: Whether it is a tuple of seeds, which may be typed as a number or a range.
        quiet: Whether the help leaves out its default, which holds under some condition only.
    """

    help: str = ""
    limit: str = ""
    rule: str = ""
    key: str = ""
    called: str = ""
    section: str = ""
    among: tuple[str, ...] = ()
    seeds: bool = False
    quiet: bool = False


@dataclass(frozen=True)
class Part:
    """Settings that are a part of others.

    Attributes:
        section: The title for those of its settings that name none.
        without: Its settings that cannot be chosen here.
        words: By setting, other help than elsewhere.
    """

    section: str
    without: tuple[str, ...] = ()
    words: Mapping[str, str] = field(default_factory=dict)


def option(default: Any, words: str, **details: Any) -> Any:  # noqa: ANN401 (what `dataclasses.field` takes and gives)
    """A field that can be chosen: its default, what it does, and what else `Described` holds."""
    return _field(default, Described(words, **details))


def part(
    default: Any,  # noqa: ANN401
    section: str,
    without: Sequence[str] = (),
    words: Mapping[str, str] = types.MappingProxyType({}),
) -> Any:  # noqa: ANN401
    """A field whose value is settings itself, made by ``default``."""
    return _field(default, Part(section, tuple(without), words))


def described(about: Described | Part) -> Mapping[str, object]:
    """The metadata of a field that says no more than what is known of it."""
    return {_KEY: about}


def _field(default: Any, about: Described | Part) -> Any:  # noqa: ANN401
    made = {"default_factory": default} if callable(default) else {"default": default}
    return field(**made, metadata=described(about))


@dataclass(frozen=True)
class Setting:
    """One thing that can be chosen, in some settings or in a part of them.

    Attributes:
        path: Its fields, from the outermost settings on: ``("settings", "training", "epochs")``.
        type: Of its value, as annotated.
        about: What is known of it.
        section: The title that it stands under.
    """

    path: tuple[str, ...]
    type: Any
    about: Described
    section: str

    @property
    def key(self) -> str:
        """Its name on the command line and in a file."""
        return self.about.key or self.path[-1]

    def of(self, settings: DataclassInstance) -> Any:  # noqa: ANN401 (whatever it holds)
        """Its value."""
        value: Any = settings
        for name in self.path:
            value = getattr(value, name)
        return value


@cache
def _annotated(kind: type) -> Mapping[str, Any]:
    """By field, its type."""
    return typing.get_type_hints(kind)


def chosen_in(kind: type[DataclassInstance], section: str = "", path: tuple[str, ...] = ()) -> Iterator[Setting]:
    """Everything that can be chosen in settings of a kind, parts of them included, in the order of the fields."""
    annotated = _annotated(kind)
    for one in fields(kind):
        about, here = one.metadata.get(_KEY), (*path, one.name)
        if isinstance(about, Part):
            inner = chosen_in(annotated[one.name], about.section, here)
            yield from (_reworded(found, about) for found in inner if found.key not in about.without)
        elif about is not None:
            yield Setting(here, annotated[one.name], about, about.section or section)


def _reworded(found: Setting, part: Part) -> Setting:
    if found.key not in part.words:
        return found
    return dataclasses.replace(found, about=dataclasses.replace(found.about, help=part.words[found.key]))


def alternatives(annotation: Any) -> tuple[Any, bool]:  # noqa: ANN401
    """A type, and whether None may stand in its place."""
    kinds = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return next(kind for kind in kinds if kind is not types.NoneType), types.NoneType in kinds


def check(settings: DataclassInstance, rules: Sequence[tuple[bool, str]] = ()) -> None:
    """Refuse settings outside their limits; names of choices become the choices, and NumPy's whole numbers Python's.

    Args:
        settings: Of a frozen dataclass.
        rules: What no interval can say: whether it is broken, and what to say then.

    Raises:
        SettingsError: Naming everything that is wrong.
    """
    annotated = _annotated(type(settings))
    _refuse(_typed(settings, one.name, annotated[one.name]) for one in fields(settings))
    found = (_within(settings, one.name, one.metadata.get(_KEY), annotated[one.name]) for one in fields(settings))
    _refuse([*found, *(message for broken, message in rules if broken)])


def _refuse(problems: Iterator[str] | Sequence[str]) -> None:
    if found := [problem for problem in problems if problem]:
        raise SettingsError("; ".join(found))


def _typed(settings: DataclassInstance, name: str, annotation: Any) -> str:  # noqa: ANN401
    """What is wrong with the type of a value; a whole number or a choice is put in its place as such."""
    value, (kind, optional) = getattr(settings, name), alternatives(annotation)
    if value is None and optional:
        return ""
    if kind is float and not isinstance(value, Real):
        return f"{name} {value!r} must be a number"
    if kind is int:
        try:
            object.__setattr__(settings, name, operator.index(value))
        except TypeError:
            return f"{name} {value!r} must be a whole number"
    if dataclasses.is_dataclass(kind) and not isinstance(value, kind):  # type: ignore[arg-type]
        return f"{name} must be {kind.__name__}(...), not {value!r}"  # type: ignore[union-attr]
    return ""


def _within(settings: DataclassInstance, name: str, about: object, annotation: Any) -> str:  # noqa: ANN401
    value, (kind, optional) = getattr(settings, name), alternatives(annotation)
    if isinstance(kind, type) and issubclass(kind, Choice):
        known = {str(choice): choice for choice in kind}
        if str(value) not in known:
            return str(unknown(name, str(value), known))
        object.__setattr__(settings, name, known[str(value)])
    if not isinstance(about, Described) or not about.limit or (value is None and optional):
        return ""
    holds, rule = _interval(about.limit)
    return "" if holds(value) else f"{about.called or name} {value} {about.rule or rule}{', or none' * optional}"


def _interval(text: str) -> tuple[Callable[[float], bool], str]:
    """Whether a number is in an interval, NaN never, and what to say of one that is not."""
    low, high = (float(end) for end in text[1:-1].split(","))
    above = operator.ge if text[0] == "[" else operator.gt
    below = operator.le if text[-1] == "]" else operator.lt
    words = f"is outside {text}"
    if high == float("inf"):
        words = f"must be {'at least' if text[0] == '[' else 'above'} {low:g}"
    return lambda value: above(value, low) and below(value, high), words
