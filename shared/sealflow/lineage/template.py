"""Templates of ``dvc.yaml``: ``${…}``, ``vars``, ``foreach`` and ``matrix``, resolved as DVC does.

Nothing is run. What cannot be resolved is an error, never a guess.
"""

from __future__ import annotations

import datetime
import itertools
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from shlex import quote
from typing import Any, Final, NamedTuple

from sealflow.errors import EvidenceError
from sealflow.findings import printable
from sealflow.lineage.files import Definition, MalformedError, PipelineFile, parse_definition

#: Most stages that one definition may generate, and most characters that one text may grow to.
MAX_GENERATED: Final = 20_000
MAX_TEXT: Final = 1 << 20

_INTERPOLATION: Final = re.compile(r"(?<!\\)\$\{(.*?)\}")
_EXPRESSION: Final = re.compile(r"[^.\[\]]+(?:\.[^.\[\]]+|\[[^.\[\]]+\])*")
_DEFAULT: Final = "params.yaml"

#: Reads a parameters file by its path relative to the repository; ``None`` when there is none.
ReadParams = Callable[[str], Mapping[Any, Any] | None]


class TemplateError(EvidenceError):
    """A template that cannot be resolved without running something, or at all."""

    code = "TEMPLATE_UNRESOLVED"


class Problem(NamedTuple):
    """A definition that could not be resolved.

    Attributes:
        name: The stage or group.
        error: Why.
        line: Where it stands.
    """

    name: str
    error: EvidenceError
    line: int


class _Variables:
    """Variables by name. A name that is given twice is refused, so the order of their sources does not matter."""

    def __init__(self, read: ReadParams) -> None:
        self._read = read
        self.values: dict[str, Any] = {}
        # Path → the keys taken from it, None for all of it.
        self._loaded: dict[str, set[str] | None] = {}

    def copy(self, *, deep: bool) -> _Variables:
        other = _Variables(self._read)
        other.values = _copied(self.values) if deep else dict(self.values)
        other._loaded = {path: None if keys is None else set(keys) for path, keys in self._loaded.items()}
        return other

    def load(self, items: tuple[Any, ...], folder: str, reserved: frozenset[str] = frozenset()) -> None:
        for item in items:
            if isinstance(item, str):
                self._load_file(item, folder, reserved)
            else:
                self._merge(item, reserved)

    def load_default(self, folder: str) -> None:
        if self._read(posixpath.normpath(posixpath.join(folder, _DEFAULT))) is not None:
            self._load_file(_DEFAULT, folder, frozenset())

    def _load_file(self, item: str, folder: str, reserved: frozenset[str]) -> None:
        path, _, names = item.partition(":")
        path = posixpath.normpath(posixpath.join(folder, path))
        keys = {name for name in names.split(",") if name} or None
        if path in self._loaded:
            before = self._loaded[path]
            if before is None and keys is None:
                return
            if before is None or keys is None or before & keys:
                raise TemplateError(f"The variables of {printable(item)} are loaded twice.")
        body = self._read(path)
        if body is None:
            raise TemplateError(f"There is no {printable(path)} to take variables from.")
        if keys is not None:
            for key in keys:
                if key not in body:
                    raise TemplateError(f"{printable(path)} has no {printable(key, 80)!r}.")
            body = {key: body[key] for key in body if key in keys}
        self._merge(body, reserved)
        if path in self._loaded and keys is not None:
            keys |= self._loaded[path] or set()
        self._loaded[path] = keys

    def _merge(self, update: Mapping[Any, Any], reserved: frozenset[str]) -> None:
        for name in reserved:
            if name in update:
                raise TemplateError(f"The variable {name!r} is reserved in generated stages.")
        _merge(self.values, update)

    def select(self, expression: str) -> Any:
        value: Any = self.values
        for part in expression.replace("[", ".").replace("]", "").split("."):
            name = part.strip()
            if isinstance(value, dict) and name in value:
                value = value[name]
                continue
            if isinstance(value, list) and re.fullmatch(r"[+-]?[0-9]{1,9}", name, re.ASCII):
                number = int(name)
                if -len(value) <= number < len(value):
                    value = value[number]
                    continue
            raise TemplateError(f"Nothing is named {printable(expression, 80)!r} among the variables.")
        return value


def _copied(value: Any) -> Any:
    # Lists are replaced and never changed; so only mappings need a copy.
    return {key: _copied(item) for key, item in value.items()} if isinstance(value, dict) else value


def _merge(into: dict[str, Any], update: Mapping[Any, Any]) -> None:
    for key, value in update.items():
        if not isinstance(key, str):
            # DVC cannot name it in a template either.
            continue
        there = into.get(key)
        if isinstance(there, dict) and isinstance(value, dict):
            _merge(there, value)
        elif key in into:
            raise TemplateError(f"The variable {printable(key, 80)!r} is given twice.")
        else:
            into[key] = _copied(value)


def resolve(
    pipeline: PipelineFile, what: str, folder: str, read: ReadParams, parsing: Mapping[str, str] | None = None
) -> Iterator[Definition | Problem]:
    """Yield every stage of a pipeline, or why it cannot be resolved.

    Args:
        pipeline: The file.
        what: Its name for messages.
        folder: Its folder relative to the repository.
        read: Reads parameters files; may raise an EvidenceError, which becomes a problem.
        parsing: The ``[parsing]`` section of DVC's configuration, which says how mappings become options.
    """
    variables = _Variables(read)
    try:
        _no_templates(pipeline.variables, "vars")
        variables.load_default(folder)
        variables.load(pipeline.variables, folder)
    except EvidenceError as error:
        for name in pipeline.stages:
            yield Problem(name, error, pipeline.lines[name])
        return
    for name, body in pipeline.stages.items():
        line = pipeline.lines[name]
        try:
            for full, template, given in _generated(name, body, variables):
                yield _stage(full, template, given, what, folder, line, variables, parsing or {})
        except EvidenceError as error:
            yield Problem(name, error, line)


def _generated(
    name: str, body: Mapping[str, Any], variables: _Variables
) -> Iterator[tuple[str, Mapping[str, Any], dict[str, Any]]]:
    if "foreach" in body:
        items = _data(body["foreach"], variables)
        if isinstance(items, dict):
            pairs = {_text(key, {}): value for key, value in items.items()}
            for key, value in pairs.items():
                yield f"{name}@{key}", body["do"], {"item": value, "key": key}
            return
        if not isinstance(items, list):
            raise TemplateError("What foreach goes over is neither a list nor a mapping.")
        if any(isinstance(value, (dict, list)) for value in items):
            pairs = {str(index): value for index, value in enumerate(items)}
        else:
            pairs = {_text(value, {}): value for value in items}
        for key, value in pairs.items():
            yield f"{name}@{key}", body["do"], {"item": value}
    elif "matrix" in body:
        axes = _data(body["matrix"], variables)
        if not isinstance(axes, dict) or not all(isinstance(values, list) for values in axes.values()):
            raise TemplateError("The matrix is no mapping of lists.")
        template = {key: value for key, value in body.items() if key != "matrix"}
        count = 1
        for values in axes.values():
            count *= len(values)
        if count > MAX_GENERATED:
            raise TemplateError(f"The matrix generates {count} stages, more than {MAX_GENERATED}.")
        combinations: dict[str, dict[str, Any]] = {}
        for chosen in itertools.product(*(list(enumerate(values)) for values in axes.values())):
            item = {axis: value for axis, (_, value) in zip(axes, chosen, strict=True)}
            parts = [
                f"{axis}{index}" if isinstance(value, (dict, list)) else _text(value, {})
                for axis, (index, value) in zip(axes, chosen, strict=True)
            ]
            combinations["-".join(parts)] = item
        for key, item in combinations.items():
            yield f"{name}@{key}", template, {"item": item, "key": key}
    else:
        yield name, body, {}


def _data(value: Any, variables: _Variables) -> Any:
    """Resolve what stages are generated from, where a whole list or mapping may be inserted."""
    resolved = _resolve(value, variables, "", {})
    size = len(resolved) if isinstance(resolved, (list, dict)) else 0
    if size > MAX_GENERATED:
        raise TemplateError(f"The definition generates {size} stages, more than {MAX_GENERATED}.")
    return resolved


def _stage(
    name: str,
    template: Mapping[str, Any],
    given: dict[str, Any],
    what: str,
    folder: str,
    line: int,
    outer: _Variables,
    parsing: Mapping[str, str],
) -> Definition | Problem:
    try:
        variables = outer.copy(deep=bool(template.get("vars"))) if given or template.get("vars") else outer
        variables.values.update(given)
        body = {key: value for key, value in template.items() if key != "vars"}
        wdir = body.get("wdir")
        if isinstance(wdir, str):
            wdir = _text(_resolve(wdir, variables, "wdir", {}), {})
        own = template.get("vars") or ()
        if not isinstance(own, (list, tuple)) or not all(isinstance(item, (str, dict)) for item in own):
            raise MalformedError(f"{what} has variables that are neither a file nor a mapping (line {line}).")
        _no_templates(tuple(own), "vars")
        variables.load(tuple(own), posixpath.join(folder, wdir or ""), frozenset(given))
        resolved = {key: _resolve(value, variables, key, parsing) for key, value in body.items()}
        return parse_definition(name, resolved, what, line)
    except EvidenceError as error:
        return Problem(name, error, line)


def _no_templates(value: Any, where: str) -> None:
    for text in _texts(value):
        if _INTERPOLATION.search(text):
            raise TemplateError(f"{where} holds a template, which DVC does not resolve there.")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)


def _resolve(value: Any, variables: _Variables, key: str, parsing: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        resolved = {}
        for name, item in value.items():
            name = _resolve(name, variables, key, parsing)
            if isinstance(name, (dict, list)):
                raise TemplateError(f"A list or mapping becomes the name of a field of {key!r}.")
            resolved[name] = _resolve(item, variables, key, parsing)
        return resolved
    if isinstance(value, list):
        return [_resolve(item, variables, key, parsing) for item in value]
    if not isinstance(value, str):
        return value
    matches = list(_INTERPOLATION.finditer(value))
    if len(matches) == 1 and matches[0][0] == value:
        found = variables.select(_expression(matches[0]))
        _check_value(found, key)
        return found
    text = []
    end = size = 0
    for match in matches:
        found = variables.select(_expression(match))
        _check_value(found, key)
        piece = _text(found, parsing)
        size += len(piece)
        if size > MAX_TEXT:
            raise TemplateError(f"A text in {key!r} grows beyond {MAX_TEXT} characters.")
        text += [value[end : match.start()], piece]
        end = match.end()
    return "".join([*text, value[end:]]).replace("\\${", "${")


def _expression(match: re.Match[str]) -> str:
    if _EXPRESSION.fullmatch(match[1]) is None:
        raise TemplateError(f"{printable(match[0], 80)!r} is no expression of DVC.")
    return match[1]


def _check_value(value: Any, key: str) -> None:
    if isinstance(value, datetime.date):
        raise TemplateError(f"A date is inserted into {key!r}, which DVC cannot.")
    if key and isinstance(value, (dict, list)) and not (key == "cmd" and isinstance(value, dict)):
        raise TemplateError(f"A list or mapping is inserted into {key!r}.")


def _text(value: Any, parsing: Mapping[str, str]) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return _options(value, parsing)
    return str(value)


def _options(values: Mapping[Any, Any], parsing: Mapping[str, str]) -> str:
    """Return a mapping as options of a command."""
    words: list[str] = []
    for name, value in _flat(values, ""):
        if isinstance(value, bool):
            if value:
                words.append(f"--{name}")
            elif parsing.get("bool", "store_true") == "boolean_optional":
                words.append(f"--no-{name}")
        elif isinstance(value, str):
            words.append(f"--{name} {quote(value)}")
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, (dict, list)):
                    raise TemplateError(f"The list {printable(name, 80)!r} of options holds a list or mapping.")
                word = quote(item) if isinstance(item, str) else str(item)
                again = parsing.get("list", "nargs") == "append" or index == 0
                words.append(f"--{name} {word}" if again else word)
        else:
            words.append(f"--{name} {value}")
    return " ".join(words)


def _flat(values: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        full = f"{prefix}.{name}" if prefix else str(name)
        if isinstance(value, dict):
            yield from _flat(value, full)
        else:
            yield full, value
