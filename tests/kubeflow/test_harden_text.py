"""Compiled pipelines as untrusted text: what is refused, and what is read as the compiler meant it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from sealflow_kfp.hardening import PipelineError, harden, harden_text
from sealflow_kfp.hardening.reading import MAX_PIPELINE, Source, read, write


def pipeline(**changes: Any) -> dict[str, Any]:
    """A pipeline of two tasks, as small as it can be."""
    model = {"artifactType": {"schemaTitle": "system.Model", "schemaVersion": "0.0.1"}}
    container = {"image": "python", "command": ["sh", "-c"], "args": ["true"]}
    spec: dict[str, Any] = {
        "pipelineInfo": {"name": "small"},
        "components": {
            "comp-make": {"executorLabel": "exec-make", "outputDefinitions": {"artifacts": {"model": model}}},
            "comp-use": {"executorLabel": "exec-use", "inputDefinitions": {"artifacts": {"model": model}}},
        },
        "deploymentSpec": {"executors": {"exec-make": {"container": container}, "exec-use": {"container": container}}},
        "root": {
            "dag": {
                "tasks": {
                    "make": {"componentRef": {"name": "comp-make"}, "taskInfo": {"name": "make"}},
                    "use": {
                        "componentRef": {"name": "comp-use"},
                        "taskInfo": {"name": "use"},
                        "dependentTasks": ["make"],
                        "inputs": {
                            "artifacts": {
                                "model": {"taskOutputArtifact": {"producerTask": "make", "outputArtifactKey": "model"}}
                            }
                        },
                    },
                }
            }
        },
        "schemaVersion": "2.1.0",
        "sdkVersion": "kfp-2.16.1",
    }
    # Nothing in it twice, which YAML would write as a reference.
    return {**json.loads(json.dumps(spec)), **changes}


def text(value: Any) -> bytes:
    return yaml.safe_dump(value).encode()


def test_the_smallest_pipeline() -> None:
    (body,) = harden([pipeline()]).documents
    assert harden_text(text(pipeline())).documents == [body]
    assert harden_text(json.dumps(pipeline()).encode()).documents == [body]


BOMB = b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"


@pytest.mark.parametrize(
    ("data", "match"),
    [
        pytest.param(b"", "The pipeline is empty", id="empty"),
        pytest.param(b"# nothing\n", "The pipeline is empty", id="comment"),
        pytest.param(b"pipeline", "each a mapping", id="word"),
        pytest.param(b"- a\n", "each a mapping", id="list"),
        pytest.param(b"\xff\xfe", "not YAML", id="not-utf-8"),
        pytest.param(b"a: [", "not YAML", id="cut-off"),
        pytest.param(BOMB, "uses a YAML reference", id="alias-bomb"),
        pytest.param(b"a: {b: 1}\n<<: {c: 1}\n", "does not know", id="merge"),
        pytest.param(b"a: 1\na: 2\n", "twice", id="key-twice"),
        pytest.param(text(pipeline()) + b"root: {}\n", "twice", id="root-twice"),
        pytest.param(b"a: !!python/object/apply:os.system [id]\n", "does not know", id="tag-that-runs"),
        pytest.param(b"a: yes\n", "true or false", id="yes"),
        pytest.param(b"a: 010\n", "quote it", id="octal"),
        pytest.param(b"a: 1:30\n", "quote it", id="sexagesimal"),
        pytest.param(b"a: .inf\n", "neither text", id="infinity"),
        pytest.param(b"a: 2026-01-01\n", "quote it", id="date"),
        pytest.param(b"a: " + b"[" * 100 + b"]" * 100, "nested too deep", id="deep"),
        pytest.param(b"? [a]\n: b\n", "no text", id="key-that-is-a-list"),
        pytest.param(b"---\na: 1\n" * 200, "more than 100 documents", id="many-documents"),
        pytest.param(b"a: 1\n...\nb: 1\n", "document start", id="document-without-a-mark"),
        pytest.param(b'{"a": 1, "a": 2}', "twice", id="json-key-twice"),
        pytest.param(b'{"a": NaN}', "NaN", id="json-nan"),
        pytest.param(b"{" + b'"a":{' * 100 + b"}" * 101, "deeper", id="json-deep"),
        pytest.param(text(pipeline()) + b"---\n" + text(pipeline()), "platforms and nothing else", id="two-pipelines"),
        pytest.param(
            text(pipeline()) + b"---\nplatforms: {}\n---\nplatforms: {}\n", "must be one document", id="three-documents"
        ),
        pytest.param(b"platforms: {}\n---\n" + text(pipeline()), "must be one document", id="platform-first"),
    ],
)
def test_hostile_text_is_refused(data: bytes, match: str) -> None:
    with pytest.raises(PipelineError, match=match):
        harden_text(data)


def test_long_text_is_refused_before_it_is_read() -> None:
    with pytest.raises(PipelineError, match="more than"):
        harden_text(b" " * (MAX_PIPELINE + 1))


def changed(path: str, value: Any) -> dict[str, Any]:
    spec = json.loads(json.dumps(pipeline()))
    here = spec
    *way, last = path.split(".")
    for name in way:
        here = here.setdefault(name, {})
    here[last] = value
    return spec


CONTAINER = "deploymentSpec.executors.exec-make.container"
TASK = "root.dag.tasks.use"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        # What a reader of protobuf's JSON would take as well.
        pytest.param("deployment_spec", {"executors": {}}, id="snake-deployment"),
        pytest.param("components.comp-make.executor_label", "exec-other", id="snake-label"),
        pytest.param(f"{TASK}.caching_options", {"enableCache": True}, id="snake-caching"),
        pytest.param(f"{TASK}.component_ref", {"name": "comp-make"}, id="snake-reference"),
        pytest.param(f"{TASK}.inputs.artifacts.model.component_input_artifact", "x", id="snake-input"),
        pytest.param(f"{CONTAINER}.commands", ["sh"], id="member-of-a-container"),
        pytest.param("deploymentSpec.executors.exec-make.importer", {}, id="two-kinds"),
        pytest.param("deploymentSpec.executors.exec-make", {}, id="no-kind"),
        pytest.param("deploymentSpec.executors.exec-make.container", None, id="no-container"),
        pytest.param("deploymentSpec.defaults", {}, id="member-of-the-deployment"),
        pytest.param("pipelineInfo", {}, id="no-name"),
        pytest.param("pipelineInfo.name", ["a"], id="name-list"),
        pytest.param("pipelineInfo.name", "{{workflow.name}}", id="name-placeholder"),
        pytest.param("root", {"executorLabel": "exec-make"}, id="root-without-dag"),
        pytest.param("root.dag.tasks.use", None, id="task-empty"),
        pytest.param("root.dag.tasks.use", [], id="task-list"),
        pytest.param("root.dag.tasks", [], id="tasks-list"),
        pytest.param("components", [], id="components-list"),
        pytest.param("components.comp-make", None, id="component-empty"),
        pytest.param("components.comp-make.dag", {}, id="dag-and-executor"),
        pytest.param("components.comp-make.executorLabel", "exec-none", id="executor-that-is-not-there"),
        pytest.param("components.comp-make.executorLabel", {}, id="label-object"),
        pytest.param(f"{TASK}.componentRef.name", "comp-none", id="component-that-is-not-there"),
        pytest.param(f"{TASK}.componentRef", None, id="no-component"),
        *(
            pytest.param("root.dag.tasks", {name: {"componentRef": {"name": "comp-make"}}}, id=f"task-{name}")
            for name in ("", "a/b", "{{x}}", "a\tb", "t" * 1025)
        ),
        pytest.param(f"{TASK}.inputs.parameters", [], id="parameters-list"),
        pytest.param("components.comp-use.inputDefinitions.parameters", "x", id="definitions-text"),
        pytest.param(f"{TASK}.inputs.artifacts.model", {}, id="input-from-nowhere"),
        pytest.param(f"{TASK}.inputs.artifacts.model.componentInputArtifact", "model", id="input-from-two-places"),
        pytest.param(
            f"{TASK}.inputs.artifacts.model.taskOutputArtifact.producerTask", "none", id="producer-that-is-not-there"
        ),
        pytest.param(
            f"{TASK}.inputs.artifacts.model.taskOutputArtifact.outputArtifactKey", "none", id="output-that-is-not-there"
        ),
        pytest.param(f"{CONTAINER}.command", "sh", id="command-text"),
        pytest.param(f"{CONTAINER}.command", ["sh", 1], id="command-number"),
        pytest.param(f"{CONTAINER}.args", {}, id="arguments-object"),
        pytest.param(f"{CONTAINER}.env", ["A=b"], id="variable-text"),
    ],
)
def test_pipelines_that_are_none_are_refused(path: str, value: Any) -> None:
    from sealflow.errors import UsageError

    with pytest.raises(UsageError):
        harden([changed(path, value)])


@pytest.mark.parametrize(
    "platform",
    [
        pytest.param({"platforms": []}, id="list"),
        pytest.param({"platforms": {"kubernetes": {"deploymentSpec": {"executors": []}}}}, id="executors-list"),
        pytest.param(
            {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {"x": {}}}}}}, id="unknown-executor"
        ),
        pytest.param({"platforms": {}, "root": {}}, id="more-than-platforms"),
        pytest.param(
            {
                "platforms": {
                    "kubernetes": {"deploymentSpec": {"executors": {"exec-make": {"secretAsVolume": {"a": {}}}}}}
                }
            },
            id="volumes-object",
        ),
        pytest.param(
            {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {"exec-make": {"secretAsVolume": ["x"]}}}}}},
            id="volume-text",
        ),
        pytest.param(
            {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {"exec-make": {"secretAsVolume": [None]}}}}}},
            id="volume-null",
        ),
    ],
)
def test_platforms_that_are_none_are_refused(platform: Any) -> None:
    with pytest.raises(PipelineError):
        harden([pipeline(), platform], secret="keys")


@pytest.mark.parametrize("empty", [{}, {"platforms": None}, {"platforms": {"kubernetes": None}}], ids=repr)
def test_empty_platforms(empty: Any) -> None:
    done = harden([pipeline(), empty], secret="keys")
    assert done.documents == harden([pipeline()], secret="keys").documents


def dag_in_dag(levels: int, uses: int) -> dict[str, Any]:
    """A pipeline of a few lines with ``uses ** levels`` tasks."""
    spec = pipeline()
    for level in range(levels):
        inner = f"comp-{level + 1}" if level + 1 < levels else "comp-make"
        tasks = {f"t{n}": {"componentRef": {"name": inner}, "taskInfo": {"name": f"t{n}"}} for n in range(uses)}
        spec["components"][f"comp-{level}"] = {"dag": {"tasks": tasks}}
    spec["root"]["dag"]["tasks"] = {"top": {"componentRef": {"name": "comp-0"}, "taskInfo": {"name": "top"}}}
    return spec


def test_a_pipeline_that_grows_is_refused() -> None:
    with pytest.raises(PipelineError, match="more than 10000 tasks"):
        harden([dag_in_dag(20, 2)])


def test_copies_of_large_parts_are_refused() -> None:
    spec = dag_in_dag(10, 2)
    spec["components"]["comp-9"]["dag"]["tasks"]["t0"]["inputs"] = {
        "parameters": {"text": {"runtimeValue": {"constant": "x" * (1 << 20)}}}
    }
    with pytest.raises(PipelineError, match="Written out"):
        harden([spec])


def test_a_pipeline_that_holds_itself_is_refused() -> None:
    spec = dag_in_dag(2, 1)
    spec["components"]["comp-1"]["dag"]["tasks"]["t0"]["componentRef"]["name"] = "comp-0"
    with pytest.raises(PipelineError, match="holds itself"):
        harden([spec])


@pytest.mark.parametrize("empty", [None, {}, {"tasks": None}, {"tasks": {}}], ids=repr)
def test_parts_without_tasks(empty: Any) -> None:
    spec = dag_in_dag(2, 1)
    spec["components"]["comp-1"]["dag"] = empty
    (body,) = harden([spec]).documents
    assert harden([body]).documents == [body]


def test_many_uses_of_one_part() -> None:
    (body,) = harden([dag_in_dag(5, 3)]).documents
    assert len(body["components"]) == 2 + sum(3**level for level in range(5))
    assert harden([body]).documents == [body]


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({1: "a"}, id="number-as-name"),
        pytest.param({"a": float("nan")}, id="nan"),
        pytest.param({"a": b"bytes"}, id="bytes"),
        pytest.param({"a": {1, 2}}, id="set"),
    ],
)
def test_objects_that_json_does_not_know_are_refused(value: Any) -> None:
    with pytest.raises(PipelineError):
        harden([pipeline(defaultPipelineRoot=value)])


def test_an_object_that_holds_itself_is_refused() -> None:
    spec = pipeline()
    spec["root"]["again"] = spec
    with pytest.raises(PipelineError, match="deeper"):
        harden([spec])


@pytest.mark.parametrize(
    "value",
    [
        "1e5", "0o17", "1_000", "+1", "-1e-3", ".5", "0x1F", "1.0", "010", "1:30", "2026-01-01", "y", "n", "yes", "on",
        "true", "null", "~", "", "=", "<<", "- a", "a: b", "#", "a #b", "a\nb", " a", "a ", "\t", "é", "\u2028",
        "x" * 300,
        "word " * 60, "'", '"', "{{$}}", "{a}", "[a]", "*a", "&a", "!a", "%a", "@a", "`a", "|", ">", "---", "...",
        "---\na",
        "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"), "\x85", "\x7f", "\xa0",
        True, False, None, 0, -1, 17, 1.5, -0.25, 1e300, 1e-7, [], {}, [[]], {"a": {}}, ["1e5", 1.0, None],
        {"1": "one", "no": "two", "1e5": 3},
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_written_is_read_alike(value: Any) -> None:
    data = write(Source([{"value": value}, {"platforms": value}]))
    assert read(data, "x").documents == [{"value": value}, {"platforms": value}]
    assert list(yaml.safe_load_all(data)) == [{"value": value}, {"platforms": value}]


@pytest.mark.parametrize("sign", ["\r", "\x85", "\u2028", "\u2029"])
def test_comments_hide_nothing(sign: str) -> None:
    """To YAML 1.1 each of these signs ends a line, and a comment with it."""
    hidden = f"# x{sign}pipelineInfo: {{name: hidden}}\n".encode()
    rest = pipeline()
    del rest["pipelineInfo"]
    done = harden_text(hidden + text(rest))
    assert done.reports[0].pipeline == "hidden"
    assert not done.text.startswith(b"#")
    assert read(done.text, "x").documents == done.documents == list(yaml.safe_load_all(done.text))
    # Where nothing is hidden, what the compiler tells people stays.
    assert harden_text(b"# Name: small\n# y\n" + text(pipeline())).text.startswith(b"# Name: small\n# y\ncomponents:")


@pytest.mark.parametrize("word", ["1e5", "0o17", "-1e3", "+1e3"])
def test_words_that_readers_disagree_on_are_quoted(word: str) -> None:
    # PyYAML, and with it kfp's compiler, takes them for text and writes them without quotes; Go reads numbers.
    assert yaml.safe_dump({"a": word}) == f"a: {word}\n"
    assert read(f"a: {word}\n".encode(), "x").documents == [{"a": word}]
    assert write(Source([{"a": word}])) == f"a: '{word}'\n".encode()


def test_layout_is_the_compilers() -> None:
    value = {"b": [1, {"c": "d"}], "a": {"e": "f: g", "long": "word " * 40}, "empty": {}}
    assert write(Source([value, value])) == yaml.dump_all([value, value], sort_keys=True).encode()


def test_messages_name_the_file_and_the_line() -> None:
    with pytest.raises(PipelineError, match=r"p\.yaml \(document 2\) has the field 'c' twice \(line 3\)"):
        read(b"a: 1\nb: 2\n---\nc: 1\nc: 2\n", "p.yaml")
