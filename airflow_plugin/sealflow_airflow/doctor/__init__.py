"""`airflow sealflow doctor`: what this process of Airflow's sees of sealflow, and what is wrong with it.

It looks at the process that it runs in, so it is run where the scheduler, the DAG processor, the API server and a
worker run. Nothing is changed, no key signs or opens anything.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from sealflow import __version__, strictjson
from sealflow.errors import SealflowError, UsageError
from sealflow_airflow.doctor import configured, dags, installation, server
from sealflow_airflow.doctor.report import Line, Report, State, compared

_Check = tuple[str, Callable[[dict[str, str]], Iterable[Line]]]


def examine(others: Iterable[str] = (), *, worker: bool = False) -> Report:
    """Run all checks.

    Args:
        others: Files with reports of other processes, in JSON; what has to be the same is compared.
        worker: Whether tasks run where this runs, so that their keys must be there.

    Raises:
        UsageError: A file holds no report.
    """
    same: dict[str, str] = {"version": __version__}
    checks: list[_Check] = [
        ("distribution", installation.distribution),
        ("entry points", installation.entry_points),
        ("hooks", installation.hooks),
        ("installation", installation.loading),
    ]
    configuration: list[_Check] = [
        ("policy", configured.policy),
        ("gate", server.gate),
        ("notary", partial(server.notary, worker=worker)),
        ("connection", partial(configured.connection, worker=worker)),
        ("xcom backend", partial(configured.xcom, worker=worker)),
        ("environment", configured.environment),
        ("unguarded tasks", dags.unguarded),
        ("expiry", partial(configured.expiry, worker=worker)),
    ]
    lines = [line for name, check in checks for line in _guarded(name, check, same)]
    # All the others would say no more than that, each in its own words.
    if not any((line.check, line.state) == ("installation", "fault") for line in lines):
        lines += [line for name, check in configuration for line in _guarded(name, check, same)]
    lines += [line for path in others for line in compared(path, same)]
    return Report(tuple(lines), same, socket.gethostname())


def _guarded(name: str, check: Callable[[dict[str, str]], Iterable[Line]], same: dict[str, str]) -> list[Line]:
    lines: list[Line] = []
    try:
        lines.extend(check(same))
    except SealflowError as error:
        state: State = "unknown" if error.retryable else "fault"
        lines.append(Line(name, state, "a check that runs", f"{error.code}: {error.message}", error.next_step))
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
        hint = "Run it where Airflow's database can be reached."
        lines.append(Line(name, "unknown", "a check that runs", found, hint))
    return lines


def main(arguments: Any) -> None:
    """Run the command; ends with its exit status."""
    try:
        report = examine(arguments.compare or (), worker=arguments.worker)
    except UsageError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_status)
    if arguments.json:
        sys.stdout.write(strictjson.dumps(report.as_dict()).decode() + "\n")
    else:
        for line in report.as_dict()["lines"]:
            sys.stdout.write(f"{line['state']:8}{line['check']}: {line['found']}\n")
            if line["state"] in ("fault", "unknown", "warning"):
                sys.stdout.write(f"{'':8}expected  {line['expected']}\n")
            if line["next_step"]:
                sys.stdout.write(f"{'':8}next      {line['next_step']}\n")
    sys.stdout.flush()
    sys.exit(report.exit_status)
