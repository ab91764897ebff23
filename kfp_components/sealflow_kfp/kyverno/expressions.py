"""Writing CEL, the language of Kyverno's policies and of Kubernetes' own: literals that nobody's text can leave.

Only what every implementation of CEL has is used: comprehensions, ``has``, ``matches``, ``startsWith``; no optional
fields, no functions of Kyverno's or Kubernetes' own. So the same expressions can be judged by any of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from typing import Final, Literal, NamedTuple

from sealflow_kfp.admission import shapes

#: Words of the longest command whose options are read one by one; a longer one is refused.
MAX_WORDS: Final = 80

#: Which pods a rule is about: all; those that no rule of the admin's exempts; those that none lets have the node's
#: powers; those that none exempts, also where an update changes their annotations alone.
Reach = Literal["all", "task", "isolation", "annotations"]


class Variable(NamedTuple):
    """A named expression, for the others to use as ``variables.<name>``."""

    name: str
    expression: str


class Rule(NamedTuple):
    """One rule.

    Attributes:
        expression: What must be true.
        message: What is said where it is not: the code of the admission server's finding, and what to do.
        reach: Which pods it is about.
    """

    expression: str
    message: str
    reach: Reach = "task"


def text(value: str) -> str:
    """Return a string literal. JSON's escapes are CEL's, and what has none stands as it is."""
    return json.dumps(value, ensure_ascii=False)


def texts(values: Iterable[str]) -> str:
    """Return a list of string literals."""
    return f"[{', '.join(map(text, values))}]"


def matches(expression: str, pattern: str) -> str:
    """Return the expression that a text matches a pattern (RE2) as a whole."""
    return f"{expression}.matches({text(f'^(?:{pattern})$')})"


def any_of(expressions: Iterable[str]) -> str:
    """Return the expression that one of several is true; of none, false."""
    return " || ".join(f"({item})" for item in expressions) or "false"


def all_of(expressions: Iterable[str]) -> str:
    """Return the expression that all of several are true; of none, true."""
    return " && ".join(f"({item})" for item in expressions) or "true"


def sidecar(images: Iterable[str]) -> str:
    """Return the expression that the container ``c`` has an image of a mesh's or an agent's, and runs no task."""
    return f'c.name != "main" && has(c.image) && c.image in {texts(images)}'


def off(parent: str, *names: str) -> str:
    """Return the expression that truth values are absent or false."""
    return all_of(f"!has({parent}.{name}) || {parent}.{name} == false" for name in names)


def begins(expression: str, words: Iterable[str], offset: str = "0") -> str:
    """Return the expression that a list has these words from a position on."""
    return all_of(
        f"{expression}.size() > {offset} + {number} && {expression}[{offset} + {number}] == {text(word)}"
        for number, word in enumerate(words)
    )


def positions() -> str:
    """Return the list of positions in a command; CEL has no loop that counts."""
    return f"[{', '.join(map(str, range(MAX_WORDS)))}]"


def options(words: str, first: str, end: str, names: Collection[str] | None = None) -> str:
    """Return the expression that a stretch of a list holds options of a Go program, and nothing else.

    Go's programs stop reading options at the first word that is none, and run what stands there. Each word is an option
    here (``--name`` or ``--name=value``) or the value right behind a ``--name``; a value never begins with two dashes,
    so that no word can be taken for both. Of options that are truth values the bare name has no value behind it. One
    that stands there twice says the same both times, since programs differ in which they take.

    Args:
        words: The list.
        first: Position of its first word.
        end: Position behind its last word.
        names: Names of the options that may be there; all where it is ``None``, and then nobody asks for twice.
    """
    truths = sorted(shapes.TRUTH_OPTIONS if names is None else shapes.TRUTH_OPTIONS & set(names))
    valued = "[A-Za-z0-9_][A-Za-z0-9_-]*" if names is None else _named(set(names) - set(truths))
    either = valued if names is None else _named(names)
    word, before = f"{words}[i]", f"{words}[i - 1]"
    bare = f"{matches(word, f'--(?:{valued})')} && !({word} in {texts(f'--{name}' for name in truths)})"
    takes = f"{matches(before, f'--(?:{valued})')} && !({before} in {texts(f'--{name}' for name in truths)})"
    alone = f"{word} in {texts(f'--{name}' for name in truths)}"
    return one_line(f"""
        {words}.size() <= {MAX_WORDS} && {_agreeing(words, end, names)} && variables.positions.all(i, i < {first}
            || i >= {end} || ({word}.startsWith("--")
                ? ({matches(word, f"--(?:{either})=(?s:.*)")} || {alone}
                   || ({bare} && i + 1 < {end} && !{words}[i + 1].startsWith("--")))
                : (i > {first} && {takes})))
    """)


def _named(names: Iterable[str]) -> str:
    # Names come from the settings, too: what is no letter means itself. A pattern for none matches nothing.
    return "|".join(rf"\Q{item}\E" for item in sorted(names)) or r"[^\s\S]"


def _agreeing(words: str, end: str, names: Iterable[str] | None) -> str:
    if names is None:
        return "true"
    # Written so that only an option that is there twice costs a second look.
    spelled = f'{words}.filter(word, word == "--" + name || word.startsWith("--" + name + "="))'
    values = f'variables.positions.filter(i, i + 1 < {end} && {words}[i] == "--" + name).map(i, {words}[i + 1])'
    return one_line(f"""
        {texts(sorted(names))}.all(name, {spelled}.size() < 2
            || ([{spelled}].all(same, same.all(word, word == same[0]))
                && [{values}].all(same, same.all(word, word == same[0]))))
    """)


def option_is(words: str, name: str, value: str) -> str:
    """Return the expression that an option has this value wherever it stands."""
    return one_line(f"""
        variables.positions.all(i, i >= {words}.size()
            || ((!({words}[i] == {text(f"--{name}")}) || (i + 1 < {words}.size() && {words}[i + 1] == {text(value)}))
                && (!{words}[i].startsWith({text(f"--{name}=")}) || {words}[i] == {text(f"--{name}={value}")})))
    """)


def fields(expression: str, known: Iterable[str]) -> str:
    """Return the expression that an object has no other fields."""
    return f"{expression}.all(field, field in {texts(sorted(known))})"


def one_line(expression: str) -> str:
    """Return an expression without the line breaks and indentation that it was written with here."""
    return re.sub(r"\s*\n\s*", " ", expression).strip()
