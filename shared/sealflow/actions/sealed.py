"""One decorator for the usual task: inputs verified and held, outputs signed."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

from sealflow.errors import UsageError

_NOT_DONE_ON_RETURN = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)

F = TypeVar("F", bound=Callable[..., Any])


def sealed(
    *,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    identities: Any = None,
    recipients: Any = None,
    signer: Any = None,
    evidence_store: str | None = None,
    policy: str | None = None,
    **options: Any,
) -> Callable[[F], Callable[..., Any]]:
    """Wrap a function: verified private copies go in, signed references come out.

    Args:
        inputs: Names of parameters that take references or locations, or lists of them. The function receives the
            path of the held copy, or a list of paths; ``None`` stays ``None``.
        outputs: Names of parameters that say where the function writes. Each is signed after the function returned.
        identities: Who may have signed the inputs.
        recipients: URIs of the keys that open encrypted inputs, by default what the surroundings set.
        signer: Who signs the outputs.
        evidence_store: Where the outputs' evidence goes. Inputs bring theirs in their reference, or use this one.
        policy: One more policy for the inputs, the path of a draft; it can only tighten.
        options: ``storages``, ``audit`` and ``passphrase`` as the actions take them.

    Returns:
        A decorator. The wrapped function returns the JSON form of the reference for one output, a mapping from
        parameter name to reference for several, and the function's own result for none.

    Raises:
        UsageError: A name is not a parameter of the function, or stands in both lists; the function is a coroutine
            or a generator, which would work on after its copies are gone and its outputs are signed. At the call,
            before the function starts: an output without a location, no signer.
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
        if any(kind(function) for kind in _NOT_DONE_ON_RETURN):
            raise UsageError(f"{function.__name__}() is a coroutine or a generator; seal a plain function.")
        signature = inspect.signature(function)
        for name in (*inputs, *outputs):
            parameter = signature.parameters.get(name)
            if parameter is None or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise UsageError(f"{function.__name__}() has no parameter {name!r} to seal.")

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            # Here, so that a DAG file that only declares the task does not pay for them.
            from sealflow.actions import context
            from sealflow.actions.sign import chosen_signer, open_signer, sign
            from sealflow.actions.verify import verified
            from sealflow.evidence.reference import is_reference
            from sealflow.storage import Storages

            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            places = {name: _place(name, bound.arguments[name]) for name in outputs}
            if outputs:
                # A wrong key path should not cost hours of work. The key is opened again when it is used.
                surroundings, storages = context.current(), common.get("storages") or Storages()
                for place in places.values():
                    canonical = storages.for_uri(place).canonical(place)
                    open_signer(chosen_signer(canonical, surroundings, signer), **passphrase)
            with ExitStack() as stack:

                def hold(value: Any) -> str:
                    store = None if is_reference(value) else evidence_store
                    return stack.enter_context(
                        verified(
                            value,
                            identities=identities,
                            recipients=recipients,
                            evidence_store=store,
                            policy=policy,
                            **common,
                            **passphrase,
                        )
                    )

                for name in inputs:
                    value = bound.arguments[name]
                    if isinstance(value, Sequence) and not isinstance(value, str):
                        bound.arguments[name] = [hold(item) for item in value]
                    elif value is not None:
                        bound.arguments[name] = hold(value)
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


def _place(name: str, value: Any) -> str:
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise UsageError(f"The output {name!r} needs a location, not {type(value).__name__}.")
    return os.fspath(value)
