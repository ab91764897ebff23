"""The command `airflow sealflow`, found through the provider's metadata."""

from __future__ import annotations

import sys
from typing import Any


def get_commands() -> list[Any]:
    """Return the group of commands. What they do is imported when one is run."""
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand

    doctor = ActionCommand(
        name="doctor",
        help="Say what this process of Airflow's sees of sealflow, and what is wrong with it",
        description=(
            "Run it where the scheduler, the DAG processor, the API server and a worker run. "
            "Exit status: 0 nothing is wrong, 3 something is, 5 nobody can say."
        ),
        func=_doctor,
        args=(
            Arg(("--worker",), help="Tasks run here: a key of theirs that is missing is wrong", action="store_true"),
            Arg(("--json",), help="Print one JSON object", action="store_true"),
            Arg(("--compare",), help="Compare with this report of another process (JSON); repeatable", action="append"),
        ),
    )
    return [GroupCommand(name="sealflow", help="Look after sealflow", subcommands=(doctor,))]


def _doctor(arguments: Any) -> None:
    try:
        from sealflow_airflow.doctor import main
    except Exception as error:
        # What the doctor is for; it is made of what is broken.
        sys.stderr.write(
            f"fault   installation: sealflow cannot be loaded here ({type(error).__name__}: {error})\n"
            f"{'':8}expected  one whole installation of sealflow\n"
            f"{'':8}next      Install sealflow[airflow] anew, in this environment.\n"
        )
        sys.exit(3)
    main(arguments)
