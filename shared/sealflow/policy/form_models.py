"""Forms as models of pydantic: what is wrong with a document that was refused, and the published JSON Schema.

The models are made of the same classes as the reader in :mod:`sealflow.policy.form`, and never decide: whoever needs no
message needs none of this. The tests hold that both take and refuse the same documents, and to equal values.
"""

from __future__ import annotations

import datetime
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, TypeVar, Union

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    model_validator,
)

from sealflow.findings import printable
from sealflow.policy.form import Form, Problem, make, members
from sealflow.policy.form_parts import About, Between, Check, Matches, Size, is_moment, is_near

_F = TypeVar("_F", bound=Form)


class Strict(BaseModel):
    """A part of a document: every member is known and of its own type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def problems(form: type[Form], data: bytes) -> list[Problem]:
    """Return all that is wrong with a document, empty where nothing is.

    Args:
        form: What it may hold.
        data: JSON.
    """
    try:
        read_as_model(form, data)
    except ValidationError as error:
        return problems_of(error)
    return []


def read_as_model(form: type[_F], data: bytes) -> _F:
    """Read a document with pydantic: for what it says about a bad one, and for the tests to compare with.

    Raises:
        ValidationError: It is not what its form says.
    """
    # From the bytes, so that JSON's own types decide: "1" is no number and 1 is no text.
    found: _F = _formed(model_of(form).model_validate_json(data))
    return found


def problems_of(error: ValidationError) -> list[Problem]:
    """Return each problem's path, in the model's terms, and one sentence."""
    return [(tuple(item["loc"]), _message(dict(item))) for item in error.errors(include_url=False)]


def schema_of(form: type[Form], name: str) -> dict[str, Any]:
    """Return the published JSON Schema of a kind of document (draft 2020-12).

    Args:
        form: What it may hold.
        name: Its name in the schema's own identifier.
    """
    body = plain_schema(form)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"urn:sealflow:schema:{name}:v1", **body}


def plain_schema(form: type[Form]) -> dict[str, Any]:
    """Return the JSON Schema of a form without the head of a published one."""
    return model_of(form).model_json_schema(mode="validation")


_models: Final[dict[type, type[BaseModel]]] = {}
_forms: Final[dict[type, type[Form]]] = {}


def model_of(form: type[Form]) -> type[BaseModel]:
    """Return the model of a form."""
    if form not in _models:
        made = _models[form] = _made(form)
        _forms[made] = form
    return _models[form]


def _formed(value: Any) -> Any:
    """Return what a model read as the reader would return it."""
    if type(value) in _forms:
        given = {name: _formed(getattr(value, name)) for name in value.model_fields_set}
        return make(_forms[type(value)], given)
    if isinstance(value, tuple):
        return tuple(_formed(item) for item in value)
    return {name: _formed(item) for name, item in value.items()} if isinstance(value, dict) else value


class _Whole(Strict):
    # Not for every form: the path to a problem names it where there are alternatives.
    @model_validator(mode="after")
    def _whole(self) -> Any:
        return _formed(self)


class _Looked(_Whole):
    # What goes through here is no JSON any more but Python's, where strict models take no list for a tuple.
    @model_validator(mode="before")
    @classmethod
    def _before(cls, value: Any) -> Any:
        _forms[cls]._before(value)
        return value


def _made(form: type[Form]) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for name, member in members(form).items():
        hint = _hint(member.hint)
        about = next((item.text for item in _markers(member.hint) if isinstance(item, About)), "")
        told: dict[str, Any] = {"description": about} if about else {}
        if not member.required:
            told |= _default(member.default)
        fields[name] = (hint, Field(**told))
    base = _Looked if "_before" in vars(form) else _Whole if "_check" in vars(form) else Strict
    return create_model(form.__name__, __base__=base, __doc__=form.__doc__, **fields)


def _default(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {"default_factory": dict}
    return {"default": model_of(type(value)).model_construct() if isinstance(value, Form) else value}


def _markers(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint)[1:] if typing.get_origin(hint) is Annotated else ()


def _hint(hint: Any) -> Any:
    """Return an annotation of a form in pydantic's terms."""
    markers = _markers(hint)
    if markers:
        made = _hint(typing.get_args(hint)[0])
        for told in (told for marker in markers for told in _told(marker)):
            made = Annotated[made, told]
        return made
    if hint is datetime.datetime:
        return Annotated[AwareDatetime, Field(strict=False), _before(is_moment), _after(is_near)]
    if isinstance(hint, type) and issubclass(hint, Form):
        return model_of(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return Union[tuple(_hint(item) for item in arguments)]  # noqa: UP007  (of as many as there are)
    if origin is tuple:
        return tuple[_hint(arguments[0]), ...]  # type: ignore[misc]
    if origin is not None and origin is not Literal:
        return dict[_hint(arguments[0]), _hint(arguments[1])]  # type: ignore[misc]
    return hint


def _told(marker: object) -> list[Any]:
    if isinstance(marker, Size):
        least = [Field(min_length=marker.least)] if marker.least else []
        return [*least, *([Field(max_length=int(marker.most))] if marker.most != float("inf") else [])]
    if isinstance(marker, Between):
        return [Field(ge=marker.least, le=marker.most)]
    if isinstance(marker, Matches):
        return [Field(pattern=marker.pattern)]
    if isinstance(marker, Check):
        return [_after(marker.check)]
    if isinstance(marker, About):
        return [Field(examples=list(marker.examples))] if marker.examples else []
    raise TypeError(f"{marker!r} says nothing")


def _after(check: Callable[[Any], object]) -> AfterValidator:
    return AfterValidator(_passing(check))


def _before(check: Callable[[Any], object]) -> BeforeValidator:
    return BeforeValidator(_passing(check))


def _passing(check: Callable[[Any], object]) -> Callable[[Any], Any]:
    def looked(value: Any) -> Any:
        check(value)
        return value

    return looked


def _message(item: Mapping[str, Any]) -> str:
    text = str(item["msg"]).removeprefix("Value error, ").rstrip(".")
    kind = item["type"]
    if kind == "extra_forbidden":
        return "this field is unknown"
    if kind == "missing":
        return "this field is missing"
    shown = item.get("input")
    if isinstance(shown, (str, int, float, bool)) and "PRIVATE" not in str(shown):
        text += f" (found {printable(shown, 60)!r})"
    return text[:1].lower() + text[1:]
