"""One decorator for the usual task: inputs verified and held, outputs signed."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

from sealflow.actions.sign import sign
from sealflow.actions.verify import verified
from sealflow.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])


def sealed(
    *,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    identities: Any = None,
    signer: Any = None,
    evidence_store: str | None = None,
    **options: Any,
) -> Callable[[F], Callable[..., Any]]:
    """Wrap a function: verified private copies go in, signed references come out.

    Args:
        inputs: Names of parameters that take references or locations. The function receives the path of the held copy.
        outputs: Names of parameters that say where the function writes. Each is signed after the function returned.
        identities: Who may have signed the inputs.
        signer: Who signs the outputs.
        evidence_store: Where the outputs' evidence goes. Inputs bring theirs in their reference, or use this one.
        options: ``storages``, ``audit`` and ``passphrase`` as the actions take them.

    Returns:
        A decorator. The wrapped function returns the JSON form of the reference for one output, a mapping from
        parameter name to reference for several, and the function's own result for none.

    Raises:
        UsageError: A name is not a parameter of the function, or stands in both lists.
    """
    both = set(inputs) & set(outputs)
    if both:
        raise UsageError(f"{min(both)!r} is both an input and an output.")
    common = {key: options[key] for key in ("storages", "audit") if key in options}
    passphrase = {"passphrase": options["passphrase"]} if "passphrase" in options else {}
    unknown = options.keys() - {"storages", "audit", "passphrase"}
    if unknown:
        raise UsageError(f"sealed() takes no {min(unknown)!r}.")

    def decorate(function: F) -> Callable[..., Any]:
        signature = inspect.signature(function)
        for name in (*inputs, *outputs):
            if name not in signature.parameters:
                raise UsageError(f"{function.__name__}() has no parameter {name!r} to seal.")

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            places = {name: os.fspath(bound.arguments[name]) for name in outputs}
            with ExitStack() as stack:
                for name in inputs:
                    if bound.arguments[name] is not None:
                        bound.arguments[name] = stack.enter_context(
                            verified(
                                bound.arguments[name],
                                identities=identities,
                                evidence_store=None if _brings_store(bound.arguments[name]) else evidence_store,
                                **common,
                            )
                        )
                result = function(*bound.args, **bound.kwargs)
                refs = {
                    name: sign(place, signer=signer, evidence_store=evidence_store, **common, **passphrase).as_dict()
                    for name, place in places.items()
                }
            if not outputs:
                return result
            return refs if len(outputs) > 1 else refs[outputs[0]]

        return run

    return decorate


def _brings_store(value: Any) -> bool:
    from sealflow.evidence.reference import is_reference

    return is_reference(value)
