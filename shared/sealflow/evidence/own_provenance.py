"""Provenance in the very bytes that we write, read by a shorter way than all other JSON.

Nearly all provenance on a long way has this form, and one pass over it takes less than half of the time that parsing
takes. Its members stand in one order, so none can stand there twice; its texts are printable ASCII without quotes and
backslashes, so they hold nothing that means something in JSON. A JSON parser therefore finds the same texts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from sealflow.evidence.provenance import (
    BUILD_TYPE,
    MAX_TEXT,
    PREDICATE_TYPE,
    Dependency,
    Provenance,
)
from sealflow.evidence.statement import STATEMENT_TYPE
from sealflow.hashing import Digest

#: What provenance states, as texts alone, which another process can be sent: its own members, and those of each input.
#: A digest is what stands between the outer quotes of a DigestSet's one member: cut out once, looked up as it is.
Told = tuple[tuple[str, str, str, str, str, str], list[tuple[str, str, str, str]]]

_SOURCE: Final = "source"
_BETWEEN: Final = '":"'
_TEXT: Final = f"[ !#-\\[\\]-~]{{0,{4 * MAX_TEXT}}}"
_NUMBER: Final = "(?:0|-?[1-9][0-9]{0,17})"
_HEX: Final = "[0-9a-f]{64}"
_DIGEST: Final = f'\\{{"((?:sha256|dirHash)":"{_HEX})"\\}}'

_DEPENDENCY: Final = (
    '\\{(?:"annotations":\\{"sealflow_role":"(source)"\\},)?'
    f'"digest":{_DIGEST},"name":"({_TEXT})","uri":"({_TEXT})"\\}}'
)
_PARAMETER: Final = f'"({_TEXT})":\\{{(?:"redacted":true|"hmac-sha256":"{_HEX}")\\}}'
_RUN: Final = (
    f'\\{{(?:"attempt":{_NUMBER},)?(?:"instance":"{_TEXT}",)?(?:"map_index":{_NUMBER},)?"orchestrator":"{_TEXT}"'
    + "".join([f'(?:,"{name}":"{_TEXT}")?' for name in ("run", "task", "team", "workflow")])
    + "\\}"
)


def _several(item: str) -> str:
    """Return what matches items between commas, or none, as one group."""
    bare = re.sub(r"(?<!\\)\((?!\?)", "(?:", item)
    return f"((?:{bare}(?:,{bare})*)?)"


_STATEMENT: Final = re.compile(
    f'\\{{"_type":"{re.escape(STATEMENT_TYPE)}","predicate":\\{{'
    f'"buildDefinition":\\{{"buildType":"{re.escape(BUILD_TYPE)}",'
    f'"externalParameters":\\{{"artifact":"{_TEXT}","parameters":\\{{{_several(_PARAMETER)}\\}},'
    f'"producer":"(?P<producer>{_TEXT})"\\}},'
    f'"internalParameters":\\{{(?:"adoption":\\{{"reason":"{_TEXT}"\\}},)?"run":{_RUN}\\}},'
    f'"resolvedDependencies":\\[{_several(_DEPENDENCY)}\\]\\}},'
    f'"runDetails":\\{{"builder":\\{{"id":"(?P<builder>{_TEXT})","version":\\{{"sealflow":"{_TEXT}"\\}}\\}},'
    '"metadata":\\{"finishedOn":"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)",'
    f'"invocationId":"({_TEXT})"\\}}\\}}\\}},'
    f'"predicateType":"{re.escape(PREDICATE_TYPE)}","subject":\\[\\{{"digest":{_DIGEST},"name":"({_TEXT})"\\}}\\]\\}}'
)
_DEPENDENCIES: Final = re.compile(_DEPENDENCY)
_PARAMETERS: Final = re.compile(_PARAMETER)

# Most digests that are remembered at a time.
_MAX_DIGESTS: Final = 1 << 16


class Digests(dict[str, Digest]):
    """The digest for each text as in :data:`Told`; a graph names each as often as something was made from it."""

    def __missing__(self, text: str) -> Digest:
        if len(self) >= _MAX_DIGESTS:
            self.clear()
        found = self[text] = Digest.parse(text.replace(_BETWEEN, ":"))
        return found


_DIGESTS: Final = Digests()


def find_own_form(payload: bytes) -> Told | None:
    """Find the texts of a signed payload that has just the form that we write.

    Returns:
        ``None`` for everything else, however well it may be formed: that is for the parsers.
    """
    try:
        match = _STATEMENT.fullmatch(payload.decode("ascii"))
    except UnicodeDecodeError:
        return None
    if match is None:
        return None
    parameters, producer, dependencies, builder, finished, invocation, digest, name = match.groups()
    if parameters:
        names = _PARAMETERS.findall(parameters)
        if len(set(names)) < len(names):
            return None
    told = (name, digest, producer, builder, invocation, finished)
    return told, _DEPENDENCIES.findall(dependencies) if dependencies else []


def tell(said: Provenance, inputs: Sequence[Dependency]) -> Told:
    """Return as texts what the parsers found; the opposite of :func:`understand`."""
    told = (said.name, _written(said.digest), said.producer, said.builder, said.invocation, said.finished_on)
    return told, [(_SOURCE if item.source else "", _written(item.digest), item.name, item.uri) for item in inputs]


def _written(digest: Digest) -> str:
    return f"{digest.algorithm}{_BETWEEN}{digest.hex}"


def understand(told: Told, digests: Digests) -> tuple[Provenance, tuple[Dependency, ...]]:
    """Return what provenance states, without its raw ``dependencies``, and these, parsed.

    Args:
        told: The texts.
        digests: Gives the digests.
    """
    (name, digest, producer, builder, invocation, finished), inputs = told
    said = Provenance(name, digests[digest], producer, builder, invocation, finished, ())
    used = [Dependency(uri, digests[text], called, source != "") for source, text, called, uri in inputs]
    return said, tuple(used)


def read_own_form(payload: bytes) -> tuple[Provenance, tuple[Dependency, ...]] | None:
    """Return what a signed payload states that has just the form that we write; ``None`` for everything else."""
    told = find_own_form(payload)
    return None if told is None else understand(told, _DIGESTS)
