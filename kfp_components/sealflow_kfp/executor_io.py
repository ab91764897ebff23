"""What KFP's launcher hands to a task's process, and what the process hands back: read strictly, rewritten exactly.

KFP says it all in one argument (``ExecutorInput`` as JSON), and reads one file afterwards (``ExecutorOutput``). Names,
places and metadata in both were written by others: by whoever compiled the pipeline, by whoever can reach the metadata
store, by the task's own command.
"""

from __future__ import annotations

import copy
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from sealflow import strictjson
from sealflow.errors import EvidenceError, UsageError
from sealflow.findings import printable
from sealflow_kfp.run_context import NO_ARTIFACTS, RESERVED_PREFIX, RUN_ID_PARAMETER, WORKSPACE_ARTIFACTS

#: Longest executor input in bytes: the kernel takes no longer argument (``MAX_ARG_STRLEN``).
MAX_INPUT: Final = 128 << 10
#: Longest executor output in bytes.
MAX_OUTPUT: Final = 16 << 20
#: Most artifacts of one input; a loop over more is collected by none of KFP's backends.
MAX_ARTIFACTS: Final = 10_000

#: Where the launcher shows what lies in which store (``LocalPathForURI``).
FOLDERS: Final = MappingProxyType({"gs://": "/gcs/", "minio://": "/minio/", "s3://": "/s3/"})
_MODELCARS: Final = "/oci/"
_IN_WORKSPACE: Final = "_kfp_workspace"
_CUSTOM: Final = ("customPath", "custom_path")

_INPUT = "The executor input"
_OUTPUT = "The executor output"
# What follows a path so that it is another one: more of its last name.
_END = r"(?![\w-]|\.\w)"


@dataclass
class Handed:
    """An artifact as the launcher hands it over, in the form in which kfp's own ``Artifact`` shows it to a task.

    Attributes:
        name: Name of the input or output.
        uri: Its location.
        path: Where the task finds it, as KFP writes this into arguments; empty where KFP shows it to no task.
        metadata: Its metadata, untrusted.
        kind: Its type, such as ``system.Model``; empty when unknown.
        number: Its place in a list of artifacts, 0 for the first.
    """

    name: str
    uri: str
    path: str
    metadata: dict[str, Any] = field(default_factory=dict)
    kind: str = ""
    number: int = 0

    @property
    def key(self) -> tuple[str, int]:
        """By which it is rewritten."""
        return self.name, self.number

    @property
    def shared(self) -> bool:
        """Whether others can write there: what the launcher fetched from a store lies in a folder of this pod."""
        return not self.path.startswith((*FOLDERS.values(), _MODELCARS))

    def __str__(self) -> str:
        return f"{self.name}[{self.number}]" if self.number else self.name


class ExecutorInput(NamedTuple):
    """What a task is given.

    Attributes:
        text: The argument as it came.
        body: The same, decoded.
        inputs: The input artifacts, in the order in which they stand.
        outputs: The output artifacts, by name; without those that are none of the task's.
        page: Where a page about the task goes, if the pipeline asks for one.
        output_file: Where the task's command leaves its executor output; empty when KFP names no place.
        reserved: Values of the parameters that a hardener added.
    """

    text: str
    body: dict[str, Any]
    inputs: tuple[Handed, ...]
    outputs: Mapping[str, Handed]
    page: Handed | None
    output_file: str
    reserved: Mapping[str, Any]

    @classmethod
    def parse(cls, text: str) -> ExecutorInput:
        """Read the argument.

        Raises:
            EvidenceError: Too long, or not this form.
            UsageError: A parameter's name is reserved and not known; a place cannot be.
        """
        data = text.encode("utf-8", "surrogateescape")
        body = _object(strictjson.loads(data, limit=MAX_INPUT, what=_INPUT), _INPUT)
        given, made = _member(body, "inputs", _INPUT), _member(body, "outputs", _INPUT)
        values = _member(given, "parameterValues", _INPUT)
        reserved = {name: value for name, value in values.items() if name.startswith(RESERVED_PREFIX)}
        # Imported here: what reads a plan is needed by nobody else.
        from sealflow_kfp.plan import PLAN_PARAMETER, TASK_PARAMETER

        for name in reserved:
            if name not in (RUN_ID_PARAMETER, PLAN_PARAMETER, TASK_PARAMETER):
                raise UsageError(
                    f"The parameter {printable(name)} is none that a task may be given.",
                    next_step="Rename the parameter. Policy, keys and settings come from mounts alone.",
                )
        inputs = tuple(
            item
            for name, listed in _member(given, "artifacts", _INPUT).items()
            for item in _artifacts(name, listed, given=True)
        )
        outputs: dict[str, Handed] = {}
        page = None
        for name, listed in _member(made, "artifacts", _INPUT).items():
            items = _artifacts(name, listed, given=False)
            if name not in NO_ARTIFACTS:
                if len(items) != 1:
                    raise UsageError(f"The output {printable(name)!r} is {len(items)} artifacts; one can be guarded.")
                # An empty path, of a place that KFP shows to no task, would be the working folder.
                if not items[0].path or os.path.abspath(items[0].path).count("/") < 3:
                    # What a failed task made is removed there.
                    raise UsageError(f"The output {printable(name)!r} lies at no place of an output.")
                outputs[name] = items[0]
            elif name.startswith(RESERVED_PREFIX) and items:
                page = items[0]
        output_file = made.get("outputFile", "")
        if not isinstance(output_file, str):
            raise EvidenceError(f"{_INPUT}: outputFile is no text.")
        if output_file:
            _checked_path(output_file, "outputFile")
        made_paths = [item.path for item in outputs.values()] + ([output_file] if output_file else [])
        refuse_nested(made_paths, [item.path for item in inputs])
        return cls(text, body, inputs, outputs, page, output_file, reserved)

    @property
    def concerned(self) -> bool:
        """Whether there is an artifact, or a plan that does not say that there is none."""
        from sealflow_kfp.plan import PLAN_PARAMETER, Plan

        if self.inputs or self.outputs:
            return True
        try:
            plan = Plan.parse(self.reserved[PLAN_PARAMETER]) if PLAN_PARAMETER in self.reserved else None
        except EvidenceError:
            return True
        return plan is not None and bool(plan.inputs or plan.outputs)

    def rewritten(self, moved: Mapping[tuple[str, int], str], metadata: Mapping[tuple[str, int], Any]) -> str:
        """Return the argument for the task's command.

        Args:
            moved: For inputs, by name and number, another path.
            metadata: For inputs other metadata.
        """
        hidden = self.page is not None
        if not moved and not metadata and not hidden:
            return self.text
        body = copy.deepcopy(self.body)
        for (name, number), path in moved.items():
            item = body["inputs"]["artifacts"][name]["artifacts"][number]
            item["uri"] = path
            for key in _CUSTOM:
                item.pop(key, None)
            if isinstance(item.get("metadata"), dict):
                item["metadata"].pop(_IN_WORKSPACE, None)
        for (name, number), value in metadata.items():
            body["inputs"]["artifacts"][name]["artifacts"][number]["metadata"] = value
        if hidden and self.page is not None:
            del body["outputs"]["artifacts"][self.page.name]
        return strictjson.dumps(body).decode("utf-8")

    def command(self, command: Sequence[str], text: str, moved: Mapping[tuple[str, int], str]) -> list[str]:
        """Return the task's command with the executor input and the paths of moved inputs exchanged.

        Args:
            command: The command as KFP made it.
            text: The executor input for it.
            moved: For inputs, by name and number, another path.

        Raises:
            UsageError: An argument names the place of a moved input in a form in which it cannot be exchanged, so the
                command would read there what nobody checked.
        """
        paths = {item.path: moved[item.key] for item in self.inputs if item.key in moved}
        # The longest first: one may be the beginning of another.
        names = "|".join(re.escape(path) for path in sorted(paths, key=len, reverse=True))
        place = re.compile(rf"(?<![\w./~-])({names}){_END}") if paths else None
        trace = re.compile(rf"({names}){_END}") if paths else None
        made = []
        for argument in command:
            pieces = argument.split(self.text) if self.text != text or paths else [argument]
            if place is not None and trace is not None:
                pieces = [place.sub(lambda match: paths[match[1]], piece) for piece in pieces]
                if found := next(filter(None, map(trace.search, pieces)), None):
                    raise UsageError(
                        f"An argument of the command names {printable(found[1])} in a form that cannot be exchanged "
                        "for the checked copy.",
                        next_step="Let the path of the input stand alone, or behind a space, `=`, `:` or a quote.",
                    )
            made.append(text.join(pieces))
        return made


@dataclass
class ExecutorOutput:
    """What a task's command hands back, and what is added to it.

    Attributes:
        body: The document.
    """

    body: dict[str, Any]

    @classmethod
    def read(cls, path: str) -> ExecutorOutput:
        """Read the file that the command left; there may be none.

        Raises:
            EvidenceError: It is no regular file, too long, or not this form.
        """
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return cls({})
        except OSError as error:
            raise EvidenceError(f"{_OUTPUT} cannot be read: {error.strerror}.") from None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise EvidenceError(f"{_OUTPUT} is no regular file.")
        with open(fd, "rb") as file:
            data = file.read(MAX_OUTPUT + 1)
        return cls.parse(data)

    @classmethod
    def parse(cls, data: bytes) -> ExecutorOutput:
        """Read untrusted bytes.

        Raises:
            EvidenceError: Too long, or not this form.
        """
        body = _object(strictjson.loads(data, limit=MAX_OUTPUT, what=_OUTPUT), _OUTPUT)
        for name, listed in _member(body, "artifacts", _OUTPUT).items():
            what = f"{_OUTPUT}: {printable(name, 80)}"
            for item in _list(listed, what):
                _item(item, what)
        return cls(body)

    def entry(self, name: str) -> dict[str, Any] | None:
        """Return what stands there about an output, ``None`` where nothing does.

        Raises:
            EvidenceError: More than one artifact.
        """
        items = _list(_member(self.body, "artifacts", _OUTPUT).get(name, {}), _OUTPUT)
        if len(items) > 1:
            raise EvidenceError(f"{_OUTPUT} makes {len(items)} artifacts of the output {printable(name, 80)!r}.")
        return items[0] if items else None

    def place(self, artifact: Handed) -> tuple[str, str]:
        """Return where an output lies in the end, and the place that the command chose for its bytes, if any.

        Returns:
            Its location, and a path apart from the one that belongs to it, or an empty text.

        Raises:
            EvidenceError: A place that cannot be.
        """
        item = self.entry(artifact.name) or {}
        return item.get("uri") or artifact.uri, _custom(item, artifact.name)

    def drop(self, names: Iterable[str]) -> None:
        """Take out what stands there about outputs that are none of the command's."""
        listed = self.body.get("artifacts")
        if listed and any(name in listed for name in names):
            self.body["artifacts"] = {name: value for name, value in listed.items() if name not in names}

    def settle(self, artifact: Handed, metadata: Mapping[str, Any], without: Sequence[str] = ()) -> None:
        """Write down what an output is: it lies in its own place and has more metadata.

        Args:
            artifact: The output.
            metadata: What is added to its metadata.
            without: Keys that are taken from it.
        """
        item = self.entry(artifact.name)
        if item is None:
            item = {"name": artifact.name, "uri": artifact.uri}
            self.body["artifacts"] = {**(self.body.get("artifacts") or {}), artifact.name: {"artifacts": [item]}}
        for key in _CUSTOM:
            item.pop(key, None)
        kept = {key: value for key, value in (item.get("metadata") or {}).items() if key not in without}
        item["metadata"] = {**kept, **metadata}

    def metadata(self, artifact: Handed) -> dict[str, Any]:
        """Return an output's metadata as KFP will store it: what it was given, and what its command wrote."""
        return {**artifact.metadata, **((self.entry(artifact.name) or {}).get("metadata") or {})}

    def to_bytes(self) -> bytes:
        """Return the document for the launcher."""
        return strictjson.dumps(self.body)


def path_of(uri: str, what: str) -> str:
    """Return where KFP shows a location to a task, as the launcher's ``LocalPathForURI`` does.

    Returns:
        The path; a path is its own. Empty for a location that KFP shows to no task.

    Raises:
        EvidenceError: A location that leads out of its folder.
    """
    for scheme, folder in FOLDERS.items():
        if uri.startswith(scheme):
            return _checked_path(folder + uri[len(scheme) :], what)
    if uri.startswith("oci://"):
        return _checked_path(f"{_MODELCARS}{uri[6:].replace('/', '_')}/models", what)
    return "" if not uri or "://" in uri else _checked_path(uri, what)


def _artifacts(name: str, listed: Any, *, given: bool) -> list[Handed]:
    what = f"{_INPUT}: {printable(name, 80)}"
    items = _list(listed, what)
    if len(items) > MAX_ARTIFACTS:
        raise EvidenceError(f"{what} has more than {MAX_ARTIFACTS} artifacts.")
    return [_handed(name, number, _item(item, what), given=given) for number, item in enumerate(items)]


def _handed(name: str, number: int, item: dict[str, Any], *, given: bool) -> Handed:
    uri, metadata = item.get("uri") or "", item.get("metadata") or {}
    custom = _custom(item, name)
    if custom and given:
        # KFP hands over none, and a task's own library would read at another place than the launcher.
        raise UsageError(f"The input {printable(name, 80)!r} has a custom path.")
    path = custom or path_of(uri, name)
    if given and path and metadata.get(_IN_WORKSPACE) is True:
        path = f"{WORKSPACE_ARTIFACTS}/{path.lstrip('/')}"
    kind = item.get("type")
    title = kind.get("schemaTitle", "") if isinstance(kind, dict) else ""
    return Handed(name, uri, path, metadata, title if isinstance(title, str) else "", number)


def _item(item: Any, what: str) -> dict[str, Any]:
    found = _object(item, what)
    for key in ("uri", *_CUSTOM):
        if not isinstance(found.get(key), (str, type(None))):
            raise EvidenceError(f"{what}: {key} is no text.")
    if not isinstance(found.get("metadata"), (dict, type(None))):
        raise EvidenceError(f"{what}: metadata is no object.")
    return found


def _custom(item: Mapping[str, Any], name: str) -> str:
    given = {value for key in _CUSTOM if (value := item.get(key))}
    if len(given) > 1:
        # Two readers would take different ones.
        raise EvidenceError(f"{printable(name, 80)!r} has two custom paths.")
    return _checked_path(given.pop(), name) if given else ""


def _checked_path(path: str, what: str) -> str:
    parts = path.split("/")
    if not path.strip("/") or not path.isprintable() or "://" in path or ".." in parts or "." in parts[1:]:
        raise EvidenceError(f"{printable(path)!r} is no place of {printable(what, 80)!r}.")
    return path


def refuse_nested(outputs: Iterable[str], inputs: Iterable[str] = ()) -> None:
    """Refuse an output that is, holds or lies in another output or an input: writing one would change the other.

    Raises:
        UsageError: Names both.
    """
    places = [(f"{os.path.abspath(path)}/", True) for path in outputs]
    places += [(f"{os.path.abspath(path)}/", False) for path in inputs if path]
    around: list[tuple[str, bool]] = []
    for place, made in sorted(places):
        while around and not place.startswith(around[-1][0]):
            around.pop()
        if around and (made or any(item[1] for item in around)):
            raise UsageError(f"{printable(place[:-1])} and {printable(around[-1][0][:-1])} overlap; one is an output.")
        around.append((place, made))


def _list(listed: Any, what: str) -> list[Any]:
    items = _object(listed, what).get("artifacts")
    # What is left out and what is null is the same in this form (ProtoJSON).
    items = [] if items is None else items
    if not isinstance(items, list):
        raise EvidenceError(f"{what}: artifacts is no list.")
    return items


def _member(body: Mapping[str, Any], key: str, what: str) -> dict[str, Any]:
    value = body.get(key)
    return {} if value is None else _object(value, f"{what}: {key}")


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise EvidenceError(f"{what} is no JSON object.")
    return value
