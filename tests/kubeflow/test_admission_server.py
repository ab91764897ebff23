"""The admission server over real HTTPS: what it answers, what it bears, and how it comes and goes."""

from __future__ import annotations

import asyncio
import base64
import functools
import io
import json
import socket
from types import SimpleNamespace
from typing import Any

import jsonpatch
import pytest

from sealflow.errors import UsageError
from sealflow_kfp.admission import server as server_module
from sealflow_kfp.admission.decide import decide
from sealflow_kfp.admission.memo import Memo
from sealflow_kfp.admission.server import Addresses, AdmissionServer
from tests.kubeflow.admission_client import (
    LOOPBACK,
    Authority,
    Decided,
    Judge,
    days,
    post,
    review,
    run,
    until,
    world,
)
from tests.kubeflow.argo import Task, compiled
from tests.kubeflow.cluster_pods import SETTINGS
from tests.kubeflow.cluster_pods import review as cluster_review
from tests.pki import NOW

UID = "705ab4f5-6393-11e8-b7cc-42010a800002"


# --- reviews ---


def test_a_review_goes_to_the_judge_and_its_answer_back(authority: Authority) -> None:
    async def scenario() -> None:
        async with world(authority) as made:
            client = await made.connect()
            first, second = review(UID), review("another", padding=300_000)
            assert (await client.ask(post(first))).response == {"uid": UID, "allowed": True}
            # On the same connection, as the API server does it.
            answer = await client.ask(post(second))
            assert answer.response["uid"] == "another"
            assert answer.headers["content-type"] == "application/json"
            assert made.judge.bodies == [first, second]
            assert made.judge.asked == {("settings", False)}
            assert (await client.ask(post(review(UID), path="/validate?timeout=10s"))).response["uid"] == UID
            assert made.judge.asked == {("settings", False), ("settings", True)}

    run(scenario())


def test_a_body_in_chunks_is_a_body(authority: Authority) -> None:
    async def scenario() -> None:
        async with world(authority) as made:
            body = review(UID)
            head = post(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
            chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[i : i + 7]), body[i : i + 7]) for i in range(0, len(body), 7))
            assert (await made.ask(head + chunks + b"0\r\n\r\n")).response["uid"] == UID
            assert made.judge.bodies == [body]

    run(scenario())


def test_who_waits_to_be_told_to_go_on_is_told(authority: Authority) -> None:
    async def scenario() -> None:
        async with world(authority) as made:
            client = await made.connect()
            data = post(review(UID), "Expect: 100-continue")
            head, _, body = data.partition(b"\r\n\r\n")
            await client.send(head + b"\r\n\r\n")
            assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
            assert (await client.ask(body)).response["uid"] == UID

    run(scenario())


def test_fifty_at_once_each_get_their_own_answer(authority: Authority) -> None:
    async def scenario() -> None:
        async with world(authority) as made:
            uids = [f"uid-{number}" for number in range(50)]
            clients = [await made.connect() for _ in uids]
            data = [post(review(uid, padding=20_000)) for uid in uids]
            answers = await asyncio.gather(*(c.ask(d) for c, d in zip(clients, data, strict=True)))
            assert [answer.response["uid"] for answer in answers] == uids
            assert made.server._listener.buffered == 0

    run(scenario())


def test_requests_that_do_not_wait_are_answered_in_their_order(authority: Authority) -> None:
    async def scenario() -> None:
        async with world(authority) as made:
            client = await made.connect()
            await client.send(b"".join(post(review(str(number))) for number in range(5)))
            assert [(await client.reply()).response["uid"] for _ in range(5)] == list("01234")

    run(scenario())


NOT_REVIEWS = {
    "another path": (post(review(), path="/"), 404),
    "a path below": (post(review(), path="/mutate/x"), 404),
    "an encoded path": (post(review(), path="/%6dutate"), 404),
    "the health on this port": (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    "GET": (b"GET /mutate HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    "PUT": (post(review()).replace(b"POST", b"PUT"), 405),
    "text": (post(review()).replace(b"application/json", b"text/plain"), 415),
    "no type": (post(review()).replace(b"Content-Type", b"X-Type"), 415),
    "protobuf": (post(review()).replace(b"application/json", b"application/vnd.kubernetes.protobuf"), 415),
}


@pytest.mark.parametrize("name", NOT_REVIEWS)
def test_what_is_no_review_reaches_no_judge(authority: Authority, name: str) -> None:
    data, status = NOT_REVIEWS[name]

    async def scenario() -> None:
        async with world(authority) as made:
            client = await made.connect()
            assert (await client.ask(data)).status == status
            assert not made.judge.bodies
            # And the connection is as good as before.
            assert (await client.ask(post(review(UID)))).response["uid"] == UID

    run(scenario())


def test_a_workflow_goes_round_as_in_a_cluster(authority: Authority) -> None:
    """Asked to change it, changed, asked to change it again, asked to judge it; with the real judge."""
    workflow = compiled([Task("train"), Task("score", after=["train"])])

    async def scenario() -> None:
        async with world(authority, functools.partial(decide, memo=Memo(SETTINGS)), settings=SETTINGS) as made:
            client = await made.connect()

            async def ask(path: str, body: Any) -> Any:
                return (await client.ask(post(cluster_review(body), path=path))).response

            refused = await ask("/validate?timeout=10s", workflow)
            assert refused["allowed"] is False
            assert "TASK_UNGUARDED" in refused["status"]["message"]
            answer = await ask("/mutate?timeout=10s", workflow)
            assert (answer["allowed"], answer["patchType"]) == (True, "JSONPatch")
            changed = jsonpatch.apply_patch(workflow, json.loads(base64.b64decode(answer["patch"])))
            again = await ask("/mutate?timeout=10s", changed)
            assert again["allowed"] is True
            assert "patch" not in again
            assert (await ask("/validate?timeout=10s", changed))["allowed"] is True
            verdicts = [line["verdict"] for line in made.log()]
            assert verdicts == ["refused", "allowed", "allowed", "allowed"]
            assert made.log()[0]["codes"] == ["TASK_UNGUARDED"]
            assert await made.metric('findings_total{code="TASK_UNGUARDED"}') == 1

    run(scenario())


# --- whatever goes wrong, the answer is no ---


class OopsError(Exception):
    pass


@pytest.mark.parametrize("error", [OopsError, MemoryError, RecursionError, KeyError, AttributeError, AssertionError])
def test_a_judge_that_fails_refuses(authority: Authority, error: type[Exception]) -> None:
    def fail(body: bytes) -> Decided:
        raise error("a secret of the author")

    async def scenario() -> None:
        async with world(authority, Judge(fail)) as made:
            client = await made.connect()
            answer = await client.ask(post(review(UID)))
            assert answer.status == 200
            assert json.loads(answer.body)["kind"] == "AdmissionReview"
            assert answer.response["uid"] == UID
            assert answer.response["allowed"] is False
            assert answer.response["status"]["code"] == 500
            assert "secret of the author" not in answer.body.decode() + made.raw_log()
            (line,) = made.log()
            assert (line["uid"], line["verdict"], line["error"]) == (UID, "error", error.__name__)
            assert line["at"].startswith("tests.kubeflow.test_admission_server:")
            assert await made.metric('requests_total{kind="other",verdict="error"}') == 1
            assert (await client.ask(post(review(UID)))).status == 200

    run(scenario())


NO_UID = {
    "nothing": b"",
    "no JSON": b"{",
    "no object": b"[]",
    "no request": b"{}",
    "no uid": b'{"request": {}}',
    "a number": b'{"request": {"uid": 7}}',
    "empty": b'{"request": {"uid": ""}}',
    "long": json.dumps({"request": {"uid": "u" * 129}}).encode(),
    "twice": b'{"request": {"uid": "a", "uid": "b"}}',
    "deep": b"[" * 100_000,
    "not UTF-8": b'{"request": {"uid": "\xff"}}',
}


@pytest.mark.parametrize("name", NO_UID)
def test_a_judge_that_fails_without_a_uid_is_status_500(authority: Authority, name: str) -> None:
    def fail(body: bytes) -> Decided:
        raise OopsError

    async def scenario() -> None:
        async with world(authority, Judge(fail)) as made:
            answer = await made.ask(post(NO_UID[name]))
            assert (answer.status, answer.body) == (500, b"")

    run(scenario())


@pytest.mark.parametrize("lacking", ["status", "response", "allowed", "findings", "uid"])
def test_a_decision_that_is_none_refuses(authority: Authority, lacking: str) -> None:
    def broken(body: bytes) -> Any:
        decided = vars(SimpleNamespace(**{f: getattr(Decided(b"{}"), f) for f in Decided.__dataclass_fields__}))
        return SimpleNamespace(**{name: value for name, value in decided.items() if name != lacking})

    async def scenario() -> None:
        async with world(authority, Judge(broken)) as made:
            assert (await made.ask(post(review(UID)))).response["allowed"] is False

    run(scenario())


def test_what_waited_too_long_is_not_judged_any_more(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "GIVEN_UP", -1.0)

    async def scenario() -> None:
        async with world(authority) as made:
            assert (await made.ask(post(review()))).status == 503
            assert not made.judge.bodies
            assert await made.metric('dropped_total{reason="given_up"}') == 1

    run(scenario())


# --- health, metrics, log ---


def test_health(authority: Authority) -> None:
    async def scenario() -> None:
        async with world(authority) as made:
            assert (await made.get("/healthz")).body == b"ok\n"
            assert (await made.get("/readyz")).body == b"ok\n"
            assert (await made.get("/")).status == 404
            assert (await made.get("/healthz", "DELETE")).status == 405
            # Reviews are for the port with TLS.
            client = await made.plain(made.server.ports[1])
            assert (await client.ask(post(review()))).status == 413
            client = await made.plain(made.server.ports[1])
            assert (await client.ask(post(b""))).status == 405
            assert not made.judge.bodies

    run(scenario())


def test_a_certificate_that_ended_is_not_ready(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with world(authority) as made:
            monkeypatch.setattr(made.server._certificates, "not_after", NOW - days(1))
            answer = await made.get("/readyz")
            assert (answer.status, answer.body) == (503, b"the certificate has ended\n")
            assert (await made.get("/healthz")).status == 200

    run(scenario())


def test_metrics_count_and_hold_no_name_of_an_author(authority: Authority) -> None:
    refusal = SimpleNamespace(code="PERMISSION_DENIED", severity="refusal")
    findings = (refusal, SimpleNamespace(code="made\nup", severity="warning"))
    answers = iter(
        [
            Decided(b"{}", kind="Pod", uid="a", allowed=False, findings=findings),
            Decided(b"{}", kind="Workflow", uid="b", findings=(refusal,)),
            Decided(b"{}", kind='x"}\nevil 1', uid="c", namespace='n\n{"event": "review"}', name="\u2028\x1b[31m"),
        ]
    )

    async def scenario() -> None:
        async with world(authority, Judge(lambda body: next(answers))) as made:
            for _ in range(3):
                await made.ask(post(review()))
            assert await made.metric('requests_total{kind="Pod",verdict="refused"}') == 1
            assert await made.metric('requests_total{kind="Workflow",verdict="would_refuse"}') == 1
            assert await made.metric('requests_total{kind="other",verdict="allowed"}') == 1
            assert await made.metric('findings_total{code="PERMISSION_DENIED"}') == 2
            assert await made.metric('findings_total{code="other"}') == 1
            assert await made.metric('decision_seconds_count{kind="Pod"}') == 1
            assert await made.metric("certificate_not_after_seconds") == made.server._certificates.not_after.timestamp()
            assert await made.metric("enforcing") == 1
            text = (await made.get("/metrics")).body.decode()
            assert "evil" not in text
            assert "PRIVATE" not in text
            assert [(line["uid"], line["verdict"]) for line in made.log()] == [
                ("a", "refused"), ("b", "would_refuse"), ("c", "allowed"),
            ]  # fmt: skip
            assert made.log()[0]["codes"] == ["PERMISSION_DENIED", "made\nup"]
            assert made.raw_log().isascii()
            assert {"time", "uid", "kind", "namespace", "name", "operation", "verdict", "codes", "ms"} < set(
                made.log()[0]
            )

    run(scenario())


def test_what_concerns_no_request_is_told_once_and_counted(authority: Authority) -> None:
    async def scenario() -> None:
        async with world(authority) as made:
            for _ in range(3):
                context = {"message": "socket.accept() out of system resource", "exception": OSError(24, "secret")}
                asyncio.get_running_loop().call_exception_handler(context)
            (line,) = made.log("trouble")
            assert (line["what"], line["error"]) == (context["message"], "OSError")
            assert "secret" not in made.raw_log()
            assert await made.metric('dropped_total{reason="trouble"}') == 3

    run(scenario())


def test_a_log_that_cannot_be_written_stops_nothing(authority: Authority) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    async def scenario() -> None:
        async with world(authority) as made:
            made.server._log = Gone()
            assert (await made.ask(post(review(UID)))).response["uid"] == UID

    run(scenario())


# --- coming and going ---


def test_going_is_announced_and_what_began_is_finished(authority: Authority) -> None:
    async def scenario() -> None:
        async with world(authority) as made:
            client, idle = await made.connect(), await made.connect()
            port = made.server.ports[0]
            await idle.ask(post(review()))
            data = post(review(UID))
            await client.send(data[:-5])
            await until(lambda: made.server._listener.buffered)
            stopping = asyncio.ensure_future(made.server.stop(drain=0.5, grace=30))
            await until(lambda: made.log("draining"))
            # For a while everything goes on, but probes are told.
            assert (await made.get("/readyz")).status == 503
            assert (await made.get("/healthz")).status == 200
            assert (await made.ask(post(review("late")))).response["uid"] == "late"
            await until(lambda: made.server._listener._closing)
            answer = await client.ask(data[-5:])
            assert answer.response["uid"] == UID
            assert answer.headers["connection"] == "close"
            await stopping
            assert await idle.ended()
            with pytest.raises(OSError, match=str(port)):
                await asyncio.open_connection("127.0.0.1", port)
            assert made.log("stopped")

    run(scenario())


def test_nobody_is_waited_for_for_ever(authority: Authority) -> None:
    async def scenario() -> None:
        async with world(authority, send=600.0) as made:
            client = await made.connect()
            await client.send(post(review())[:-5])
            await until(lambda: made.server._listener.buffered)
            await asyncio.wait_for(made.server.stop(grace=0.2), 30)
            assert await client.ended()

    run(scenario())


@pytest.mark.parametrize("which", ["port", "status_port"])
def test_a_port_that_is_taken_is_an_error_with_its_number(authority: Authority, which: str) -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            server = AdmissionServer(Judge(), "", authority.certificates(), enforcing=True, log=io.StringIO())
            with pytest.raises(UsageError, match=str(port)) as caught:
                await server.start(Addresses("127.0.0.1", **{"port": 0, "status_port": 0, which: port}))
            assert caught.value.code == "ADDRESS_UNUSABLE"

    run(scenario())


def test_an_address_of_another_machine_is_an_error(authority: Authority) -> None:
    async def scenario() -> None:
        server = AdmissionServer(Judge(), "", authority.certificates(), enforcing=True, log=io.StringIO())
        with pytest.raises(UsageError, match=r"192\.0\.2\.1"):
            await server.start(Addresses("192.0.2.1", LOOPBACK.port, LOOPBACK.status_port))

    run(scenario())
