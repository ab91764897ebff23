"""`sealflow policy`: write, test, sign and watch trust policies."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from sealflow import errors
from sealflow.cli.options import Json
from sealflow.cli.terminal import as_command_line, passphrase, print_json

policy_app = typer.Typer(
    help="Write, test, sign and watch trust policies.",
    no_args_is_help=True,
    epilog="Exit status: 0 done, 2 errors in a draft or failed cases, 3 a signature that does not hold, "
    "5 a policy that is not to be had.",
)

_Draft = Annotated[str, typer.Argument(metavar="FILE", help="Draft of a policy: YAML or JSON.")]
_Signer = Annotated[str, typer.Option(help="Signer URI of the admin's key: file:/admin.pem, awskms:alias/name.")]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what lies at --output.")]

_COLOURS = {"error": "red", "warning": "yellow"}


@policy_app.command()
def check(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Draft of a policy, waiver or list of revocations: YAML or JSON.")
    ],
    tests: Annotated[str | None, typer.Option("--tests", metavar="TABLE", help="Run this table of cases too.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Let warnings fail too.")] = False,
    as_json: Json = False,
) -> None:
    """Say all that is wrong with a draft, each with its line and what to write instead."""
    from sealflow.audit.event import utc_now
    from sealflow.policy.document import TrustPolicy
    from sealflow.policy.lint import lint_file

    linted = lint_file(file, utc_now())
    failed = bool(linted.errors) or (strict and bool(linted.problems))
    results: list[Any] | None = None
    if tests is not None and not linted.errors and isinstance(linted.document, TrustPolicy):
        results = _run_table(file, tests)
        failed = failed or not all(item.ok for item in results)
    if as_json:
        body: dict[str, Any] = {"ok": not failed, "problems": [item.as_dict() for item in linted.problems]}
        if tests is not None:
            body["cases"] = None if results is None else [item.as_dict() for item in results]
        print_json(body)
    else:
        _print_problems(file, linted.problems)
        if tests is not None and results is None:
            typer.echo(f"{tests} was not run: the draft has errors, or is no policy.")
        elif results is not None:
            _print_results(tests or "", results)
    sys.exit(errors.EXIT_USAGE if failed else errors.EXIT_OK)


@policy_app.command("test")
def run_tests(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Draft or signed policy.")],
    table: Annotated[str, typer.Argument(metavar="TABLE", help="Cases and what they should come to: YAML or JSON.")],
    revocations: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draft or signed list of revocations to suppose.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a table of cases over a policy, with the decision of the verification."""
    results = _run_table(file, table, revocations)
    if as_json:
        print_json({"ok": all(item.ok for item in results), "cases": [item.as_dict() for item in results]})
    else:
        _print_results(table, results)
    sys.exit(errors.EXIT_OK if all(item.ok for item in results) else errors.EXIT_USAGE)


@policy_app.command()
def explain(
    artifact: Annotated[str, typer.Argument(help="Location or artifact reference; nothing needs to lie there.")],
    policy: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draft or signed policy. Default: the one in force.")
    ] = None,
    orchestrator: Annotated[str | None, typer.Option(help="airflow, kfp, python or cli.")] = None,
    dag: Annotated[str | None, typer.Option(help="DAG of the task that checks.")] = None,
    pipeline: Annotated[str | None, typer.Option(help="Pipeline of the task that checks.")] = None,
    task: Annotated[str | None, typer.Option(help="Its task.")] = None,
    team: Annotated[str | None, typer.Option(help="Its team (Airflow) or namespace (Kubeflow).")] = None,
    name: Annotated[list[str] | None, typer.Option(help="Signed logical name to suppose. Repeatable.")] = None,
    as_json: Json = False,
) -> None:
    """Say which rules hold for an artifact in a task, what they demand, and which of them decides."""
    from dataclasses import replace

    from sealflow.actions import context
    from sealflow.actions.policy_explain import explain as find

    run = _run_identity(orchestrator, dag, pipeline, task, team)
    found = find(artifact, replace(context.current(), run=run), policy=policy, names=tuple(name or ()))
    if as_json:
        print_json(found.as_dict())
        return
    _print_explanation(found)


@policy_app.command()
def sign(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Draft of a policy, waiver or list of revocations: YAML or JSON.")
    ],
    signer: _Signer,
    output: Annotated[str, typer.Option(metavar="FILE", help="Where the signed document goes.")],
    previous: Annotated[
        str | None, typer.Option(metavar="FILE", help="Signed policy that this one follows; the version must rise.")
    ] = None,
    overwrite: _Overwrite = False,
    as_json: Json = False,
) -> None:
    """Check a draft, put its keys into it and sign it. Errors refuse; warnings are shown."""
    from sealflow.actions.policy_sign import sign_draft

    with as_command_line():
        made = sign_draft(
            file, signer=signer, output=output, previous=previous, overwrite=overwrite, passphrase=passphrase
        )
    _print_signed(made, as_json)


@policy_app.command()
def waive(
    rule: Annotated[list[str], typer.Option(help="Rule to waive; a team's rule as team/rule. Repeatable.")],
    artifact: Annotated[list[str], typer.Option(metavar="PATTERN", help="For these artifacts. Repeatable.")],
    reason: Annotated[str, typer.Option(help="Why; every verdict that uses the waiver says it.")],
    hours: Annotated[int, typer.Option(help="How long it holds.")],
    signer: _Signer,
    policy: Annotated[
        str | None, typer.Option(metavar="SIGNED", help="Signed policy. Default: that of the admin's channel.")
    ] = None,
    digest: Annotated[str | None, typer.Option(help="Only for the bytes with this artifact digest.")] = None,
    output: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Default: the channel's, else POLICY.waivers.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Break the glass: sign a waiver that turns rules, as they stand now, into audited ones for some hours."""
    from sealflow.actions.policy_sign import make_waiver

    with as_command_line():
        made = make_waiver(
            rules=rule,
            artifacts=artifact,
            reason=reason,
            hours=hours,
            signer=signer,
            policy=policy,
            digest=digest,
            output=output,
            passphrase=passphrase,
        )
    _print_signed(made, as_json)


@policy_app.command()
def show(
    file: Annotated[str, typer.Argument(metavar="SIGNED", help="Signed policy, waiver or list of revocations.")],
    key: Annotated[
        list[str] | None, typer.Option(help="Public key, one of which should have signed it. Repeatable.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what a signed policy, waiver or list of revocations says, and whether a key's signature holds."""
    import json

    from sealflow.actions.policy_files import fetch, read_signed
    from sealflow.findings import printable

    found = read_signed(fetch(file), printable(file), tuple(key or ()))
    body = found.as_dict()
    if as_json:
        print_json(body)
    else:
        words = {None: "not checked (give --key)", True: "holds", False: f"does NOT hold: {found.problem}"}
        colours = {None: "yellow", True: "green", False: "red"}
        typer.secho(f"signature  {words[found.verified]}", fg=colours[found.verified], bold=True)
        typer.echo(f"kind       {found.kind}")
        typer.echo(f"digest     {body['digest']}")
        typer.echo(f"signed by  {body['key'] or 'a key that it does not name'} (as it says)")
        typer.echo(json.dumps(body["document"], indent=2, ensure_ascii=True))
    sys.exit(errors.EXIT_REFUSED_EVIDENCE if found.verified is False else errors.EXIT_OK)


@policy_app.command()
def status(as_json: Json = False) -> None:
    """Say whether a policy is in force in this process: none, not to be had and why, or which."""
    from sealflow.actions import context
    from sealflow.actions.policy_status import status as find

    found = find(context.current())
    if as_json:
        print_json(found)
    else:
        _print_status(found)
    sys.exit(errors.EXIT_UNVERIFIABLE if found["state"] == "unavailable" else errors.EXIT_OK)


@policy_app.command()
def init(
    audit_events: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE", help="Make rules from what was seen: an audit spool, or JSON lines of `audit export`."
        ),
    ] = None,
    key: Annotated[
        list[str] | None, typer.Option(metavar="PUB", help="Public key of somebody who signs. Repeatable.")
    ] = None,
    output: Annotated[str | None, typer.Option(metavar="FILE", help="Default: standard output.")] = None,
    overwrite: _Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write a first policy. It refuses nothing: each rule is audited until you say otherwise."""
    import os

    from sealflow.actions.policy_files import write_file
    from sealflow.actions.policy_init import first_policy

    folder = os.path.dirname(os.path.abspath(output)) if output else ""
    made = first_policy(audit_events, key or (), folder=folder)
    if output is not None:
        write_file(output, made.text.encode("utf-8"), overwrite=overwrite)
    if as_json:
        print_json({**made.as_dict(), "output": output or ""})
    elif output is None:
        typer.echo(made.text, nl=False)
    else:
        typer.echo(f"wrote     {output}: {made.rules} rule{'s' * (made.rules != 1)}, all of level audit")
        for item in made.unknown:
            typer.secho(
                f"unknown   sha256:{item}: find out whose key it is; the file says where it signed", fg="yellow"
            )
        if made.unread:
            typer.secho(f"unread    {made.unread} lines are no events", fg="yellow")
        typer.echo(f"next      sealflow policy check {output}")


@policy_app.command()
def schema(
    waiver: Annotated[bool, typer.Option("--waiver", help="The schema of waivers.")] = False,
    revocations: Annotated[bool, typer.Option("--revocations", help="The schema of lists of revocations.")] = False,
    tests: Annotated[bool, typer.Option("--tests", help="The schema of table tests.")] = False,
    as_json: Json = False,
) -> None:
    """Print the JSON Schema of the policy."""
    from sealflow.actions.policy_tables import table_schema
    from sealflow.policy.document import policy_schema, waiver_schema
    from sealflow.policy.revocations import revocations_schema

    asked = [(waiver, waiver_schema), (revocations, revocations_schema), (tests, table_schema)]
    chosen = [made for given, made in asked if given] or [policy_schema]
    if len(chosen) > 1:
        raise errors.UsageError("Ask for one schema at a time.")
    print_json(chosen[0]())


def _run_identity(
    orchestrator: str | None, dag: str | None, pipeline: str | None, task: str | None, team: str | None
) -> Any:
    from sealflow.run_identity import BUILDER_IDS, RunIdentity

    if dag is not None and pipeline is not None:
        raise errors.UsageError("A task belongs to a DAG or to a pipeline, never to both.")
    implied = "airflow" if dag is not None else "kfp" if pipeline is not None else None
    chosen = orchestrator or implied or "cli"
    if chosen not in BUILDER_IDS:
        raise errors.UsageError(f"--orchestrator is one of {', '.join(BUILDER_IDS)}.")
    if implied is not None and chosen != implied:
        raise errors.UsageError(f"--{'dag' if dag is not None else 'pipeline'} is {implied}'s, not {chosen}'s.")
    return RunIdentity(chosen, dag or pipeline or "", task or "", team=team or "")  # type: ignore[arg-type]


def _run_table(file: str, table: str, revocations: str | None = None) -> list[Any]:
    from sealflow.actions.policy_files import fetch, read_either, read_revocations
    from sealflow.actions.policy_tables import read_table, run_table
    from sealflow.findings import printable

    policy, _ = read_either(file)
    cases, draft = read_table(fetch(table), printable(table))
    listed = read_revocations(revocations) if revocations is not None else None
    return run_table(policy, cases, draft, listed)


def _print_problems(file: str, problems: Any) -> None:
    from sealflow.findings import printable

    for item in problems:
        typer.secho(f"{printable(file)}:{item.line}: {item.severity} {item.id}", fg=_COLOURS[item.severity], nl=False)
        typer.echo(f"  {printable(item.place)}" if item.place else "")
        typer.echo(f"    {printable(item.message, 1000)}")
        if item.suggestion:
            typer.echo(f"    fix: {printable(item.suggestion, 1000)}")
    counts = {kind: sum(item.severity == kind for item in problems) for kind in _COLOURS}
    said = ", ".join(f"{number} {kind}{'s' * (number != 1)}" for kind, number in counts.items())
    typer.secho(said, fg="red" if counts["error"] else "yellow" if counts["warning"] else "green", bold=True)


def _print_results(table: str, results: Any) -> None:
    from sealflow.findings import printable

    for item in results:
        if item.ok:
            typer.secho("ok      ", fg="green", nl=False)
            typer.echo(printable(item.case.name))
            continue
        typer.secho("FAILED  ", fg="red", nl=False)
        typer.echo(f"{printable(item.case.name)}  ({printable(table)}:{item.line})")
        for of, expected, found in item.differences:
            typer.echo(f"  {of}: expected {printable(expected)}, found {printable(found)}")
        for reason in item.outcome.shortfalls:
            text = f"  {reason.code} {reason.rule}: {reason.message}"
            if reason.expected or reason.found:
                text += f" Expected {reason.expected or 'nothing'}, found {reason.found or 'nothing'}."
            typer.echo(printable(text, 1000))
    bad = sum(not item.ok for item in results)
    typer.secho(f"{len(results) - bad} of {len(results)} cases as expected", fg="red" if bad else "green", bold=True)


def _print_explanation(found: Any) -> None:
    from sealflow.findings import printable

    def say(label: str, text: str, **style: Any) -> None:
        typer.secho(f"{label:11} {printable(text, 1000)}", **style)

    typer.secho(printable(found.artifact), bold=True)
    say("checked by", found.task)
    for text in found.policies:
        say("policy", text)
    for text in found.readings[1:]:
        say("also read", text)
    for rule in found.rules:
        holds = f"does not hold: {rule.because}" if rule.because else f"holds ({rule.level})"
        say("rule", f"{rule.rule}  {holds}", fg=None if rule.because else "green")
        say("", rule.by)
    say("outcome", found.outcome, bold=True)
    for demand in found.demands:
        say(demand.what, f"{demand.text}  [{', '.join(demand.rules)}]")
    if found.signer:
        say("signer", found.signer)
    for waiver in found.waivers:
        say("waiver", f"{waiver.id}: {', '.join(waiver.rules) or 'no rule'}, {waiver.text}")
    for note in found.notes:
        say("note", note)


def _print_signed(made: Any, as_json: bool) -> None:
    if as_json:
        print_json(made.as_dict())
        return
    typer.secho("signed", fg="green", bold=True, nl=False)
    typer.echo(f"    {made.output}")
    typer.echo(f"{'id' if made.kind == 'waiver' else 'version':9} {made.name}")
    typer.echo(f"digest    {made.digest}")
    typer.echo(f"key       {made.key}")
    typer.echo(f"expires   {made.as_dict()['expires']}")
    for text in made.warnings:
        typer.secho(f"warning   {text}", fg="yellow", err=True)


def _print_revocations(found: dict[str, Any] | None) -> None:
    from sealflow.findings import printable

    if found is None:
        typer.secho("revoked   no list of revocations is configured", fg="yellow")
        return
    counts = ", ".join(f"{found[name]} {name}" for name in ("keys", "identities", "digests"))
    typer.echo(f"revoked   {counts}; version {found['version']}, until {found['expires']}")
    for item in found["latest"]:
        ticket = f" ({item['id']})" if item["id"] else ""
        typer.echo(f"          {printable(item['subject'])} since {item['since']}: {printable(item['reason'])}{ticket}")


def _print_status(found: dict[str, Any]) -> None:
    from sealflow.findings import printable

    state = found["state"]
    words = {"none": "no policy is configured", "unavailable": "not to be had", "in_force": "in force"}
    colours = {"none": "yellow", "unavailable": "red", "in_force": "green"}
    typer.secho(words[state], fg=colours[state], bold=True)
    channel = found.get("channel", {})
    if channel:
        typer.echo(f"channel   {channel['where']}")
        typer.echo(f"policy    {printable(channel['policy'])}, version {channel['minimum_version']} or later")
    if state == "none":
        typer.echo("Explicit checks go by their own arguments, and nothing else is checked.")
    elif state == "unavailable":
        typer.echo(f"{found['code']}  {printable(found['reason'], 1000)}")
        typer.echo(f"next      {found['next_step']}")
        managed = ", ".join(channel.get("managed", ("**",)))
        typer.echo(f"Until then all that matches {managed} is refused (POLICY_UNAVAILABLE).")
    else:
        typer.echo(f"version   {found['version']}")
        typer.echo(f"digest    {found['digest']}")
        typer.echo(f"key       {found['key']}")
        typer.echo(f"expires   {found['expires']}, grace {found['grace_hours']} hours")
        rules = ", ".join(f"{number} {level}" for level, number in found["rules"].items())
        typer.echo(f"rules     {rules}{', teams: ' + ', '.join(found['teams']) if found['teams'] else ''}")
        _print_revocations(found["revocations"])
        for item in found["waivers"]:
            holds = "until" if item["holds"] else "does not hold; until"
            text = f"{item['id']} for {', '.join(item['rules'])} {holds} {item['expires']}: {item['reason']}"
            typer.secho(f"waiver    {printable(text, 1000)}", fg="yellow" if item["holds"] else None)
        for text in found["waivers_refused"]:
            typer.secho(f"refused   {printable(text, 1000)}", fg="yellow")
        for item in found["warnings"]:
            typer.secho(f"warning   {item['code']} {printable(item['message'], 1000)} ({item['found']})", fg="yellow")
