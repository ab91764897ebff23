"""Parameters files: YAML, JSON and TOML read strictly, and the values at dotted keys."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final

from sealflow import strictjson, strictyaml
from sealflow.errors import EvidenceError
from sealflow.findings import printable

#: Largest parameters file that is read, in bytes.
MAX_PARAMS: Final = 16 << 20
_MAX_DEPTH: Final = 48


class ParamsError(EvidenceError):
    """A parameters file that cannot be read, or a key that means nothing in it."""

    code = "PARAMS_UNREADABLE"


def parse_params(data: bytes, name: str, what: str) -> dict[Any, Any]:
    """Read a parameters file by its suffix, as DVC does; everything without a known suffix is YAML.

    Args:
        data: The file.
        name: Its path, for the suffix.
        what: Its name for messages.

    Raises:
        ParamsError: Malformed, no mapping, or Python, which is not read: a parameters file must be data.
    """
    lower = name.lower()
    try:
        if lower.endswith(".py"):
            raise ParamsError(f"{what} is Python; move the parameters to YAML, JSON or TOML.")
        if lower.endswith(".json"):
            body = strictjson.loads(data, limit=MAX_PARAMS, what=what) if data.strip() else {}
        elif lower.endswith(".toml"):
            body = _toml(data, what)
        else:
            body, _ = strictyaml.loads(data, limit=MAX_PARAMS, what=what, scalar=strictyaml.core, depth=_MAX_DEPTH)
    except EvidenceError as error:
        raise ParamsError(error.message) from None
    if body is None or body == []:
        return {}
    if not isinstance(body, dict):
        raise ParamsError(f"{what} is no mapping.")
    return body


def _toml(data: bytes, what: str) -> dict[str, Any]:
    if len(data) > MAX_PARAMS:
        raise ParamsError(f"{what} has more than {MAX_PARAMS} bytes.")
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        body: dict[str, Any] = tomllib.loads(data.decode("utf-8").replace("\r\n", "\n"))
    except (ValueError, RecursionError) as error:
        raise ParamsError(f"{what} is not TOML: {printable(error, 200)}.") from None
    return body


_MISSING: Final = object()


def value_at(body: Mapping[Any, Any], key: str, what: str) -> tuple[bool, Any]:
    """Return whether a dotted key is there, and its value.

    Args:
        body: The parameters.
        key: Names and, in lists, numbers from 0, joined by dots.
        what: Name of the file for messages.

    Raises:
        ParamsError: The key has the signs of a pattern, which DVC would match against all keys.
    """
    if any(sign in key for sign in "*?["):
        raise ParamsError(f"The key {printable(key, 80)!r} of {what} is a pattern; name the parameters one by one.")
    value: Any = body
    for part in key.split("."):
        value = _member(value, part)
        if value is _MISSING:
            return False, None
    return True, value


def _member(value: Any, part: str) -> Any:
    if isinstance(value, dict):
        if part in value:
            return value[part]
        # A key may be a number or a truth value; DVC compares its text.
        return next((item for name, item in value.items() if not isinstance(name, str) and str(name) == part), _MISSING)
    if isinstance(value, list) and part.isdecimal() and part.isascii() and int(part) < len(value):
        return value[int(part)]
    return _MISSING


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are equal and of one type; 1, 1.0 and true are three values, and NaN equals nothing."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other
