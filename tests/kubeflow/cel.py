"""Judges an object by policies whose rules are CEL, with Google's own implementation of the language.

Each variable is compiled with the types of those before it, as Kubernetes and Kyverno do, so that an expression that
they would refuse to compile fails here, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cel_expr_python import cel

_NAMED = re.compile(r"\bvariables\.([A-Za-z_][A-Za-z0-9_]*)")
_ROOTS = dict.fromkeys(("object", "oldObject", "request", "namespaceObject"), cel.Type.DYN)


class Policy:
    """One policy, compiled.

    Args:
        manifest: A policy of Kyverno's (``ValidatingPolicy``).
    """

    def __init__(self, manifest: Mapping[str, Any]) -> None:
        spec = manifest["spec"]
        self.name = manifest["metadata"]["name"]
        types = dict(_ROOTS)
        self._variables: dict[str, tuple[Any, list[str]]] = {}
        for item in spec.get("variables", ()):
            compiled = cel.NewEnv(variables=types).compile(_flat(item["expression"]))
            name = f"variables_{item['name']}"
            self._variables[item["name"]] = (compiled, _needed(item["expression"]))
            types[name] = compiled.return_type()
        environment = cel.NewEnv(variables=types)
        self._rules = []
        for item in spec["validations"]:
            compiled = environment.compile(_flat(item["expression"]))
            assert compiled.return_type() in (cel.Type.BOOL, cel.Type.DYN), item["expression"]
            self._rules.append((item["message"], compiled, _needed(item["expression"])))

    def refusals(self, *, most: int = 1000, **roots: Any) -> list[str]:
        """Return the messages of the rules that an object breaks, or that cannot be judged (Kyverno refuses then, too).

        Args:
            most: Rules after which nobody looks any further.
            **roots: ``object``, ``request``, and ``oldObject`` where there is one.
        """
        data = {"object": None, "oldObject": None, "request": {}, "namespaceObject": None, **roots}
        known: set[str] = set()
        found: list[str] = []
        for message, compiled, needed in self._rules:
            # As Kyverno does: a variable is worked out where a rule needs it, and its failure is that rule's.
            for name in needed:
                self._work_out(name, data, known)
            said = compiled.eval(data=data).plain_value()
            if said is not True:
                found.append(message if said is False else f"{message} [{said}]")
            if len(found) == most:
                break
        return found

    def _work_out(self, name: str, data: dict[str, Any], known: set[str]) -> None:
        if name in known:
            return
        known.add(name)
        compiled, needed = self._variables[name]
        for other in needed:
            self._work_out(other, data, known)
        value = compiled.eval(data=data)
        if value.type() != cel.Type.ERROR:
            data[f"variables_{name}"] = value.plain_value()


def _needed(expression: str) -> list[str]:
    return list(dict.fromkeys(_NAMED.findall(expression)))


def _flat(expression: str) -> str:
    return _NAMED.sub(r"variables_\1", expression)
