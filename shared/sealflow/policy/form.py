"""Forms: what a document of an admin may hold, told by annotated classes, and read strictly at the start of every task.

A form is a class whose annotations say all that a document may hold; what they are made of is told in
:mod:`sealflow.policy.form_parts`. From that one description come two things: the reader here, which decides alone and
loads no library, and :mod:`sealflow.policy.form_models`, which says what is wrong with a document that was refused and
publishes the JSON Schema. That takes pydantic, which takes longer to load than a task's whole policy.

Every value is of its own JSON type: ``true`` is no number, ``1.0`` no integer, ``"1"`` neither, and a member that the
form does not have is refused at every level.
"""

from __future__ import annotations

import datetime
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeVar

from sealflow import strictjson
from sealflow.findings import printable
from sealflow.policy.form_parts import About, Between, Check, Matches, Size, read_moment

#: A path of names and indices, with the models' own names for members of unions, and one sentence.
Problem = tuple[tuple[Any, ...], str]
#: Takes a decoded JSON value and returns what it means, or raises ``ValueError``.
Reader = Callable[[Any], Any]
_F = TypeVar("_F", bound="Form")
_NO_REASON: Final = "it was refused without a reason, which is a defect of sealflow; please report it"
#: Most commas and brackets of a refused document that is put into words whole. A problem costs microseconds and a
#: kilobyte or two, and whoever writes a document decides how many there are.
MOST_WORDED: Final = 100_000


class RefusedError(ValueError):
    """A value is not what its form says."""


class Form:
    """A part of a document. What was read is never changed; a member that is not there has its default."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} cannot be changed: {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} cannot be changed: {name}")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in members(type(self)))

    def __repr__(self) -> str:
        given = (f"{name}={getattr(self, name)!r}" for name in members(type(self)))
        return f"{type(self).__name__}({', '.join(given)})"

    @classmethod
    def _before(cls, value: object) -> None:
        """Look at the raw value before anything else does; raises ``ValueError``."""

    def _check(self) -> None:
        """Refuse members that do not go together; raises ``ValueError``."""

    def as_json(self, *, without: Literal["", "none", "defaults"] = "") -> dict[str, Any]:
        """Return JSON values.

        Args:
            without: Leave out, at every level, members that are ``None``, or those that have their default.
        """
        found = {}
        for name, member in members(type(self)).items():
            value = getattr(self, name)
            if without == "none" and value is None:
                continue
            if without == "defaults" and not member.required and value == member.default:
                continue
            found[name] = _as_json(value, without)
        return found


def _as_json(value: Any, without: Literal["", "none", "defaults"]) -> Any:
    if isinstance(value, Form):
        return value.as_json(without=without)
    if isinstance(value, tuple):
        return [_as_json(item, without) for item in value]
    if isinstance(value, Mapping):
        return {name: _as_json(item, without) for name, item in value.items()}
    if isinstance(value, datetime.datetime):
        # The digest of a rule, to which waivers are bound, is over this text: it has one form for ever.
        text = value.isoformat()
        return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text
    return value


class Member(NamedTuple):
    """A member of a form.

    Attributes:
        hint: Its annotation.
        required: Whether it has to be there.
        default: What stands for it otherwise.
    """

    hint: Any
    required: bool
    default: Any


# Dictionaries, since a checker takes a class with an equality of its own for one that is no key.
_members: Final[dict[type, Mapping[str, Member]]] = {}
_readers: Final[dict[type, Reader]] = {}


def members(form: type[Form]) -> Mapping[str, Member]:
    """Return the members of a form, in their order."""
    found = _members.get(form)
    if found is None:
        own, hints = vars(form), typing.get_type_hints(form, include_extras=True)
        if shadowed := hints.keys() & set(dir(Form)):
            raise TypeError(f"{form.__name__} has a member by the name of what every form has: {min(shadowed)}")
        found = {name: Member(hint, name not in own, own.get(name)) for name, hint in hints.items()}
        _members[form] = found
    return found


def make(form: type[_F], values: Mapping[str, Any]) -> _F:
    """Return a form with members that were read, checked as a whole.

    Raises:
        ValueError: They do not go together.
    """
    made = object.__new__(form)
    vars(made).update(values)
    made._check()
    return made


def replaced(form: _F, **values: Any) -> _F:
    """Return a copy with other members, as sound as whoever gives them."""
    made = object.__new__(type(form))
    vars(made).update({**vars(form), **values})
    return made


def read(form: type[_F], value: Any) -> _F:
    """Read a document.

    Args:
        form: What it may hold.
        value: As :func:`sealflow.strictjson.loads` returns it.

    Raises:
        ValueError: It is not so. What is wrong, :mod:`sealflow.policy.form_models` says.
    """
    found: _F = _form(form)(value)
    return found


def problems(form: type[Form], data: bytes, value: Any, *, most: int = MOST_WORDED) -> list[Problem]:
    """Return what is wrong with a document that was refused: all of it, or the first where that would take too much.

    Loads what takes long to load.

    Args:
        form: What it may hold.
        data: JSON.
        value: What it holds.
        most: Most commas and brackets of a document that is looked at whole.
    """
    if not strictjson.more_values(data, most):
        # The reader has refused it. That the words are missing, whatever for, must not hide that from callers who go on
        # without the document.
        with suppress(Exception):
            from sealflow.policy import form_models

            if found := form_models.problems(form, data):
                return found
    return [first_problem(form, value)]


def first_problem(form: Any, value: Any, path: tuple[Any, ...] = ()) -> Problem:
    """Return where a value that was refused is first not as its annotation says, in the reader's few words."""
    hint = typing.get_args(form)[0] if typing.get_origin(form) is Annotated else form
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    parts: Iterable[tuple[Any, Any]] = ()
    hints: Mapping[Any, Any] = {}
    if isinstance(hint, type) and issubclass(hint, Form) and type(value) is dict:
        parts, hints = value.items(), {name: member.hint for name, member in members(hint).items()}
    elif origin is tuple and type(value) is list:
        parts, hints = enumerate(value), dict.fromkeys(range(len(value)), arguments[0])
    elif isinstance(origin, type) and issubclass(origin, Mapping) and type(value) is dict:
        parts, hints = value.items(), dict.fromkeys(value, arguments[1])
    readers: dict[Any, Reader] = {}
    for name, item in parts:
        if name not in hints:
            return (*path, name), "it is refused: an unknown member"
        part = hints[name]
        reader = readers.get(id(part)) or readers.setdefault(id(part), _reader(part))
        try:
            reader(item)
        except ValueError:
            return first_problem(part, item, (*path, name))
    try:
        _reader(form)(value)
    except RefusedError as error:
        return path, f"it is refused: {error}"
    except ValueError as error:
        return path, printable(str(error), 400)
    return path, _NO_REASON


def prepare(form: type[Form]) -> None:
    """Make the reader of a form now, where it was not made before.

    Raises:
        TypeError: It holds what no form may hold.
    """
    _form(form)


def _form(form: type[Form]) -> Reader:
    if form not in _readers:
        _readers[form] = _made(form)
    return _readers[form]


def _made(form: type[Form]) -> Reader:
    readers = {name: _reader(member.hint) for name, member in members(form).items()}
    required = {name for name, member in members(form).items() if member.required}
    before = form._before if "_before" in vars(form) else None

    def taken(value: Any) -> Form:
        if before is not None:
            before(value)
        if type(value) is not dict:
            raise RefusedError("no mapping")
        given: dict[str, Any] = {}
        for name, item in value.items():
            reader = readers.get(name)
            if reader is None:
                raise RefusedError("an unknown member")
            given[name] = reader(item)
        if not required <= given.keys():
            raise RefusedError("a missing member")
        return make(form, given)

    return taken


def _reader(hint: Any) -> Reader:
    """Return what reads values of an annotation.

    Raises:
        TypeError: No form may hold that.
    """
    markers: tuple[object, ...] = ()
    if typing.get_origin(hint) is Annotated:
        hint, *given = typing.get_args(hint)
        markers = tuple(item for item in given if not isinstance(item, About))
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType) and not markers:
        return _union(hint)
    if origin is Literal and not markers and all(type(item) is str for item in arguments):
        return _word(frozenset(arguments))
    if hint is str:
        return _text(markers)
    if hint is int:
        return _integer(markers)
    if hint is bool and not markers:
        return _truth
    if hint is datetime.datetime and not markers:
        return read_moment
    if origin is tuple and len(arguments) == 2 and arguments[1] is ...:
        return _list(_reader(arguments[0]), markers)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping(_reader(arguments[0]), _reader(arguments[1]), markers)
    if isinstance(hint, type) and issubclass(hint, Form) and not markers:
        return _form(hint)
    raise TypeError(f"no form holds {hint!r} with {markers!r}")


def _union(hint: Any) -> Reader:
    arguments = typing.get_args(hint)
    optional = types.NoneType in arguments
    readers = [_reader(item) for item in arguments if item is not types.NoneType]
    if optional and len(readers) == 1:
        (only,) = readers
        return lambda value: None if value is None else only(value)

    def one_of(value: Any) -> Any:
        if optional and value is None:
            return None
        for reader in readers:
            try:
                return reader(value)
            except ValueError:
                continue
        raise RefusedError("none of several forms")

    return one_of


def _truth(value: Any) -> bool:
    if type(value) is not bool:
        raise RefusedError("no boolean")
    return value


def _word(words: frozenset[str]) -> Reader:
    def taken(value: Any) -> Any:
        if type(value) is not str or value not in words:
            raise RefusedError("none of the words")
        return value

    return taken


def _range(markers: tuple[object, ...], *kinds: type) -> tuple[float, float]:
    """Return the narrowest limits among markers, all of which must be of the given kinds."""
    least, most = float("-inf"), float("inf")
    for marker in markers:
        if not isinstance(marker, kinds):
            raise TypeError(f"{marker!r} says nothing about such a value")
        if isinstance(marker, Size | Between):
            least, most = max(least, marker.least), min(most, marker.most)
    return least, most


def _integer(markers: tuple[object, ...]) -> Reader:
    least, most = _range(markers, Between)

    def taken(value: Any) -> Any:
        # Not isinstance: true is an int of Python's.
        if type(value) is not int or not least <= value <= most:
            raise RefusedError("no such integer")
        return value

    return taken


def _text(markers: tuple[object, ...]) -> Reader:
    least, most = _range(markers, Size, Matches, Check)
    # Whole: in Python a dollar sign also matches before a last line break.
    patterns = [re.compile(item.pattern).fullmatch for item in markers if isinstance(item, Matches)]
    checks = [item.check for item in markers if isinstance(item, Check)]

    def taken(value: Any) -> Any:
        if type(value) is not str or not least <= len(value) <= most:
            raise RefusedError("no such text")
        for whole in patterns:
            if whole(value) is None:
                raise RefusedError("text of another form")
        for check in checks:
            check(value)
        return value

    return taken


def _list(reader: Reader, markers: tuple[object, ...]) -> Reader:
    least, most = _range(markers, Size)

    def taken(value: Any) -> Any:
        if type(value) is not list or not least <= len(value) <= most:
            raise RefusedError("no such list")
        return tuple([reader(item) for item in value])

    return taken


def _mapping(name: Reader, reader: Reader, markers: tuple[object, ...]) -> Reader:
    least, most = _range(markers, Size)

    def taken(value: Any) -> Any:
        if type(value) is not dict or not least <= len(value) <= most:
            raise RefusedError("no such mapping")
        return {name(key): reader(item) for key, item in value.items()}

    return taken
