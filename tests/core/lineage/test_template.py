"""Templates: resolved as DVC does, or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sealflow.errors import EvidenceError
from sealflow.lineage import template
from sealflow.lineage.files import Definition, parse_pipeline
from sealflow.lineage.template import Problem, resolve

PARAMS: dict[str, Any] = {
    "lr": 0.1, "on": True, "none": None, "name": "a b", "list": [1, [2]], "models": ["x", "y"],
    "opts": {"n": 1, "flag": True, "off": False, "deep": {"s": "q'x"}, "many": [1, "b c"], "nothing": None},
    "pairs": {"p": {"v": 1}, "q": {"v": 2}}, "dicts": [{"v": 1}, {"v": 2}], "e": 1e-5, 5: "number",
}  # fmt: skip


def stages(
    body: Any, files: Mapping[str, Any] | None = None, folder: str = "", parsing: dict[str, str] | None = None
) -> dict[str, Definition | Problem]:
    found = {"params.yaml": PARAMS, **(files or {})}

    def read(path: str) -> Any:
        if isinstance(found.get(path), Exception):
            raise found[path]
        return found.get(path)

    pipeline = parse_pipeline(json.dumps(body).encode(), "dvc.yaml")
    return {item.name: item for item in resolve(pipeline, "dvc.yaml", folder, read, parsing)}


def one(stage: dict[str, Any], **more: Any) -> Definition:
    found = stages({"stages": {"s": stage}, **more})["s"]
    assert isinstance(found, Definition), found
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${lr}", 0.1), ("a ${lr} b", "a 0.1 b"), ("${on}!", "true!"), ("${none}!", "None!"), ("${ name }", "a b"),
        ("${list[0]}-${list.1.0}", "1-2"), ("${list[-2]}.", "1."), ("${e}.", "1e-05."), (r"\${lr}", "${lr}"),
        (r"\${lr} ${lr}", "${lr} 0.1"), ("$lr {lr}", "$lr {lr}"), ("${opts.deep.s}", "q'x"),
        ("go ${opts}", "go --n 1 --flag --deep.s 'q'\"'\"'x' --many 1 'b c' --nothing None"), ("${pairs.p}.", "--v 1."),
    ],
)  # fmt: skip
def test_text(text: str, expected: Any) -> None:
    if isinstance(expected, str):
        assert one({"cmd": text}).cmd == expected
    else:
        assert one({"cmd": "x", "params": [{"f": ["k"]}], "meta": {"m": text}, "outs": [{f"o{text}": {"desc": "d"}}]})


def test_options_as_configured() -> None:
    parsing = {"bool": "boolean_optional", "list": "append"}
    found = stages({"stages": {"s": {"cmd": "go ${opts}"}}}, parsing=parsing)["s"]
    assert isinstance(found, Definition)
    assert found.cmd == "go --n 1 --flag --no-off --deep.s 'q'\"'\"'x' --many 1 --many 'b c' --nothing None"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("${nothing}", "Nothing is named"), ("${lr.x}", "Nothing is named"), ("${list.9}", "Nothing is named"),
        ("${list.x}", "Nothing is named"), ("${5}", "Nothing is named"), ("${}", "no expression"),
        ("${a..b}", "no expression"), ("${a[}", "no expression"), ("${list[0}", "no expression"),
        ("x ${list}", "list or mapping"), ("x ${models}", "list or mapping"), ("${opts}", "wrong type dict"),
        ("${env:HOME}", "Nothing is named"),
    ],
)  # fmt: skip
def test_text_that_cannot_be_resolved(text: str, reason: str) -> None:
    found = stages({"stages": {"s": {"cmd": text}, "t": {"cmd": "fine"}}})
    assert isinstance(found["s"], Problem)
    assert reason in found["s"].error.message
    assert isinstance(found["t"], Definition)


def test_a_list_of_options_with_a_list_in_it() -> None:
    found = stages({"vars": [{"o": {"x": [[1]]}}], "stages": {"s": {"cmd": "go ${o}"}}})["s"]
    assert isinstance(found, Problem)


def test_everything_about_a_stage() -> None:
    found = one(
        {
            "cmd": ["a ${name}", "b"], "wdir": "../${name}", "deps": ["${name}/d", "e", "e"],
            "params": ["lr", "opts.n", {"x.json": ["k"]}, {"y.toml": None}, {"x.json": ["k", "l"]}],
            "outs": ["o", {"p": {"cache": False}}, {"p": {"persist": True}}], "metrics": [{"m": {"cache": False}}],
            "plots": [{"q": {"x": "a"}}, {"r": [{"x": "a"}, {"x": "b"}]}], "frozen": True, "always_changed": True,
        }
    )  # fmt: skip
    assert (found.cmd, found.wdir, found.deps) == (["a a b", "b"], "../a b", ("a b/d", "e"))
    assert found.params == {"params.yaml": ("lr", "opts.n"), "x.json": ("k", "l"), "y.toml": ()}
    assert {item.path: item.cache for item in found.outs} == {"o": True, "p": False, "m": False, "q": True, "r": True}
    assert found.frozen
    assert found.always_changed


def test_a_whole_parameters_file_swallows_its_keys() -> None:
    assert one({"cmd": "x", "params": ["lr", {"params.yaml": None}, {"a": ["k"]}, {"a": []}]}).params == {
        "params.yaml": (),
        "a": (),
    }


def test_generated_stages() -> None:
    found = stages(
        {
            "vars": [{"own": ["u"]}],
            "stages": {
                "a": {"foreach": ["x", 1, True, None], "do": {"cmd": "${item}"}},
                "b": {"foreach": "${models}", "do": {"cmd": "${item}", "wdir": "w/${item}"}},
                "c": {"foreach": "${pairs}", "do": {"cmd": "${key} ${item.v}"}},
                "d": {"foreach": "${dicts}", "do": {"cmd": "${item.v}"}},
                "e": {"foreach": {"k": "${lr}", "l": [1]}, "do": {"cmd": "${key}"}},
                "f": {"matrix": {"m": "${models}", "n": [1, {"z": 2}]}, "cmd": "${key} ${item.m}"},
                "g": {"foreach": [], "do": {"cmd": "x"}},
                "h": {"foreach": ["${own}"], "do": {"cmd": "${item[0]}"}},
            },
        }
    )
    assert {name: getattr(item, "cmd", item) for name, item in found.items()} == {
        "a@x": "x", "a@1": 1, "a@true": True, "a@None": None, "b@x": "x", "b@y": "y", "c@p": "p 1", "c@q": "q 2",
        "d@0": 1, "d@1": 2, "e@k": "k", "e@l": "l", "f@x-1": "x-1 x", "f@x-n1": "x-n1 x", "f@y-1": "y-1 y",
        "f@y-n1": "y-n1 y", "h@0": "u",
    } | {name: found[name] for name in ("a@1", "a@true", "a@None", "d@0", "d@1")}  # fmt: skip
    # A command is text; DVC refuses the others when it runs them.
    assert all(isinstance(found[name], Problem) for name in ("a@1", "a@true", "a@None", "d@0", "d@1"))
    assert found["b@y"].wdir == "w/y"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "stage",
    [
        {"foreach": "${lr}", "do": {"cmd": "x"}},
        {"foreach": "${nothing}", "do": {"cmd": "x"}},
        {"foreach": "text", "do": {"cmd": "x"}},
        {"matrix": {"a": "${lr}"}, "cmd": "x"},
        {"matrix": {"a": list(range(200)), "b": list(range(200))}, "cmd": "x"},
        {"foreach": {"${pairs}": 1}, "do": {"cmd": "x"}},
        {"foreach": ["a"], "do": {"cmd": "${item}", "vars": [{"item": 1}]}},
        {"cmd": "x", "vars": [{"a": "${lr}"}]},
        {"cmd": "x", "vars": [1]},
        {"cmd": "x", "vars": ["nothing.yaml"]},
        {"cmd": "x", "vars": ["params.yaml:lr"]},
        {"cmd": "x", "vars": [{"lr": 2}]},
        {"cmd": "x", "vars": [{"opts": {"n": 2}}]},
        {"cmd": "x", "wdir": "${nothing}"},
        {"cmd": "x", "outs": [{"o": {"evil": 1}}]},
        {"cmd": "x", "outs": [{"o": {"cache": "no"}}]},
        {"cmd": "x", "outs": [1]},
        {"cmd": "x", "outs": ["o"], "metrics": ["o"]},
        {"cmd": "x", "deps": [1]},
        {"cmd": "x", "deps": ["${lr}"]},
        {"cmd": "x", "params": [1]},
        {"cmd": "x", "params": [{"a": "k"}]},
        {"cmd": "x", "params": [{"a": [1]}]},
    ],
    ids=lambda stage: json.dumps(stage)[:60],
)
def test_stages_that_cannot_be_resolved(stage: dict[str, Any]) -> None:
    found = stages({"stages": {"s": stage}})
    assert found
    assert all(isinstance(item, Problem) for item in found.values())


def test_variables() -> None:
    files = {
        "more.yaml": {"a": 1, "b": {"c": 2}}, "sub/own.json": {"z": 26}, "sub/params.yaml": {"lr": 5},
        "sub/w/v.yaml": {"y": 25},
    }  # fmt: skip
    body = {
        "vars": ["../more.yaml:a", "own.json", {"b": {"d": 4}}, "../more.yaml:b"],
        "stages": {
            "s": {"cmd": "${a} ${b.c} ${b.d} ${z} ${lr}"},
            "t": {"cmd": "${y} ${b.d}", "wdir": "w", "vars": ["v.yaml", {"b": {"e": 5}}]},
            "u": {"cmd": "${b.e}"},
        },
    }
    found = stages(body, files, "sub")
    assert found["s"].cmd == "1 2 4 26 5"  # type: ignore[union-attr]
    assert found["t"].cmd == "25 4"  # type: ignore[union-attr]
    assert isinstance(found["u"], Problem), "what one stage defines is unknown to the others"


@pytest.mark.parametrize(
    "variables",
    [["nothing.yaml"], ["more.yaml:x"], ["more.yaml", "more.yaml:a"], ["more.yaml:a", "more.yaml:a"],
     ["more.yaml:a", "more.yaml"], [{"lr": 1}], ["broken.yaml"], [{"a": "${lr}"}], ["${lr}.yaml"]],
    ids=str,
)  # fmt: skip
def test_variables_that_cannot_be_resolved(variables: list[Any]) -> None:
    files = {"more.yaml": {"a": 1}, "broken.yaml": EvidenceError("broken")}
    found = stages({"vars": variables, "stages": {"s": {"cmd": "x"}, "t": {"foreach": [1], "do": {"cmd": "x"}}}}, files)
    assert set(found) == {"s", "t"}
    assert all(isinstance(item, Problem) for item in found.values())


def test_a_file_of_variables_may_be_named_twice() -> None:
    assert stages({"vars": ["params.yaml", "params.yaml"], "stages": {"s": {"cmd": "${lr}."}}})["s"].cmd == "0.1."  # type: ignore[union-attr]


def test_broken_parameters_make_every_stage_a_problem() -> None:
    found = stages({"stages": {"s": {"cmd": "x"}}}, {"params.yaml": EvidenceError("broken", code="PARAMS_UNREADABLE")})
    assert isinstance(found["s"], Problem)
    assert found["s"].error.code == "PARAMS_UNREADABLE"


def test_no_text_grows_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template, "MAX_TEXT", 1000)
    found = stages(
        {"vars": [{"long": "x" * 100}], "stages": {"s": {"cmd": "${long}" * 11}, "t": {"cmd": "${long}" * 9}}}
    )
    assert isinstance(found["s"], Problem)
    assert isinstance(found["t"], Definition)


@pytest.mark.oracle
@pytest.mark.slow
def test_dvc_resolves_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dvc.parsing import DataResolver
    from dvc.repo import Repo

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    values = {key: value for key, value in PARAMS.items() if isinstance(key, str)}
    (tmp_path / "params.yaml").write_text(json.dumps(values))
    (tmp_path / "more.json").write_text('{"z": 1, "y": {"x": [true, null]}}')
    body = {
        "vars": [{"w": {"v": "u"}}, "more.json:z"],
        "stages": {
            "a": {"cmd": ["${lr} ${on} ${w.v}", r"\${x} ${list[1][0]}"], "deps": ["${name}"], "vars": ["more.json:y"]},
            "b": {
                "foreach": "${models}",
                "do": {"cmd": "go ${item} ${opts}", "outs": [{"${item}.o": {"cache": False}}]},
            },
            "c": {"foreach": "${pairs}", "do": {"cmd": "${key} ${item.v} ${z}", "wdir": "${key}"}},
            "d": {"foreach": "${dicts}", "do": {"cmd": "x ${item.v}"}},
            "e": {"matrix": {"m": "${models}", "n": [1, {"q": 2}]}, "cmd": "${key} ${item.m}", "params": ["${item.m}"]},
            "f": {"foreach": [1.5, True, None, "t"], "do": {"cmd": "x ${item}"}},
        },
    }
    repo = Repo.init(no_scm=True)
    theirs = DataResolver(repo, str(tmp_path), body).resolve()["stages"]
    repo.close()
    more = json.loads((tmp_path / "more.json").read_text())
    ours = stages(body, {"params.yaml": values, "more.json": more})
    assert set(ours) == set(theirs)
    for name, item in ours.items():
        assert isinstance(item, Definition), item
        expected = theirs[name]
        assert (item.cmd, item.wdir, list(item.deps)) == (
            expected["cmd"],
            expected.get("wdir", ""),
            expected.get("deps", []),
        )
        assert [found.path for found in item.outs] == [path for entry in expected.get("outs", []) for path in entry]
