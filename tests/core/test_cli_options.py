"""Groups of options: a command takes them as one parameter, and its users see no difference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from sealflow.cli.options import Group, grouped


@dataclass(frozen=True, kw_only=True)
class Inner(Group):
    colour: Annotated[str | None, typer.Option(help="Its colour.")] = None
    size: Annotated[list[int] | None, typer.Option("--how-big", help="Its sizes.")] = None


@dataclass(frozen=True, kw_only=True)
class Outer(Group):
    first: Annotated[bool, typer.Option("--first", help="Before.")] = False
    inner: Inner
    last: Annotated[str, typer.Option(help="After.")]


def plain(
    what: Annotated[str, typer.Argument(help="What.")],
    first: Annotated[bool, typer.Option("--first", help="Before.")] = False,
    colour: Annotated[str | None, typer.Option(help="Its colour.")] = None,
    size: Annotated[list[int] | None, typer.Option("--how-big", help="Its sizes.")] = None,
    *,
    last: Annotated[str, typer.Option(help="After.")],
    verbose: Annotated[bool, typer.Option("--verbose", help="More.")] = False,
) -> None:
    """Paint."""
    typer.echo(repr((what, first, colour, size, last, verbose)))


@grouped
def with_groups(
    what: Annotated[str, typer.Argument(help="What.")],
    *,
    outer: Outer,
    verbose: Annotated[bool, typer.Option("--verbose", help="More.")] = False,
) -> None:
    """Paint."""
    inner = outer.inner
    typer.echo(repr((what, outer.first, inner.colour, inner.size, outer.last, verbose)))


def run(command: object, arguments: str) -> tuple[int, str]:
    app = typer.Typer(rich_markup_mode=None)
    app.command("paint")(command)  # type: ignore[arg-type]
    done = CliRunner().invoke(app, arguments.split())
    return done.exit_code, done.output


@pytest.mark.parametrize(
    "arguments",
    [
        "--help",
        "x",
        "x --last z",
        "x --last z --first --colour red --how-big 1 --how-big 2 --verbose",
        "--verbose --colour red x --last z",
        "x --last z --how-big one",
        "x --last z --size 1",
    ],
)
def test_nothing_is_different(arguments: str) -> None:
    assert run(with_groups, arguments) == run(plain, arguments)


def test_one_name_for_two_options_is_refused() -> None:
    with pytest.raises(ValueError, match="colour"):

        @grouped
        def _(*, one: Inner, two: Inner) -> None: ...
