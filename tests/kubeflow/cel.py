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
        self._variables: list[tuple[str, Any]] = []
        for item in spec.get("variables", ()):
            compiled = cel.NewEnv(variables=types).compile(_flat(item["expression"]))
            name = f"variables_{item['name']}"
            self._variables.append((name, compiled))
            types[name] = compiled.return_type()
        environment = cel.NewEnv(variables=types)
        self._rules = []
        for item in spec["validations"]:
            compiled = environment.compile(_flat(item["expression"]))
            assert compiled.return_type() in (cel.Type.BOOL, cel.Type.DYN), item["expression"]
            self._rules.append((item["message"], compiled))

    def refusals(self, **roots: Any) -> list[str]:
        """Return the messages of the rules that an object breaks, or that cannot be judged (Kyverno refuses then, too).

        Args:
            **roots: ``object``, ``request``, and ``oldObject`` where there is one.
        """
        data = {"object": None, "oldObject": None, "request": {}, "namespaceObject": None, **roots}
        for name, compiled in self._variables:
            # A variable that fails fails the rules that need it, and no others.
            value = compiled.eval(data=data)
            if value.type() != cel.Type.ERROR:
                data[name] = value.plain_value()
        found = []
        for message, compiled in self._rules:
            said = compiled.eval(data=data).plain_value()
            if said is not True:
                found.append(message if said is False else f"{message} [{said}]")
        return found


def _flat(expression: str) -> str:
    return _NAMED.sub(r"variables_\1", expression)
