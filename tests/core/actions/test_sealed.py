"""What `sealed` hands to a function, what it makes of the outputs, and what it refuses before the function starts."""

from __future__ import annotations

from pathlib import Path

import pytest

import sealflow
from sealflow.errors import UsageError, VerificationError
from tests.pki import KeyPair, write_key


@pytest.fixture
def key(tmp_path: Path) -> KeyPair:
    return write_key(tmp_path)


@pytest.fixture
def trust(key: KeyPair) -> dict[str, str]:
    return {"identities": f"file:{key.public}", "signer": key.signer}


def signed(key: KeyPair, folder: Path, name: str, text: str) -> sealflow.ArtifactRef:
    path = folder / name
    path.write_text(text)
    return sealflow.sign(path, signer=key.signer)


def test_input_is_a_checked_copy_and_output_a_reference(tmp_path, key, trust):
    ref = signed(key, tmp_path, "in.txt", "3")
    seen = []

    @sealflow.sealed(inputs=["source"], outputs=["destination"], **trust)
    def double(source, destination):
        seen.append(source)
        Path(destination).write_text(str(2 * int(Path(source).read_text())))

    made = double(ref.as_dict(), destination=str(tmp_path / "out.txt"))
    with sealflow.verified(made, identities=trust["identities"]) as path:
        assert Path(path).read_text() == "6"
    assert seen[0] != str(tmp_path / "in.txt")
    assert not Path(seen[0]).exists()


def test_list_of_inputs_becomes_a_list_of_copies(tmp_path, key, trust):
    refs = [signed(key, tmp_path, f"{number}.txt", str(number)) for number in range(3)]

    @sealflow.sealed(inputs=["parts"], **trust)
    def total(parts):
        return sum(int(Path(part).read_text()) for part in parts)

    assert total(refs) == 3
    (tmp_path / "1.txt").write_text("9")
    with pytest.raises(VerificationError, match="FILE_CHANGED"):
        total(refs)


def test_several_outputs_are_named(tmp_path, trust):
    @sealflow.sealed(outputs=["a", "b"], **trust)
    def write(a, b):
        for path in (a, b):
            Path(path).write_text("x")

    refs = write(tmp_path / "a.txt", tmp_path / "b.txt")
    assert {name: Path(ref["uri"]).name for name, ref in refs.items()} == {"a": "a.txt", "b": "b.txt"}


def test_optional_input_that_is_absent_stays_none(trust):
    @sealflow.sealed(inputs=["source"], **trust)
    def use(source=None):
        return source

    assert use() is None


def test_refused_input_keeps_the_function_from_starting(tmp_path, key, trust):
    ref = signed(key, tmp_path, "in.txt", "3")
    (tmp_path / "in.txt").write_text("4")

    @sealflow.sealed(inputs=["source"], **trust)
    def use(source):
        pytest.fail("started")

    with pytest.raises(VerificationError):
        use(ref)


def test_refusal_is_what_the_surroundings_say(tmp_path, key, trust):
    class FinalError(VerificationError):
        pass

    ref = signed(key, tmp_path, "in.txt", "3")
    (tmp_path / "in.txt").write_text("4")
    with sealflow.run(sealflow.Surroundings(refusal=FinalError)), pytest.raises(FinalError):
        sealflow.sealed(inputs=["source"], **trust)(lambda source: None)(ref)


@pytest.mark.parametrize(
    "place", [pytest.param(None, id="none"), pytest.param("", id="empty"), pytest.param(3, id="number")]
)
def test_output_without_a_location_is_refused_before_the_work(trust, place):
    @sealflow.sealed(outputs=["destination"], **trust)
    def work(destination):
        pytest.fail("started")

    with pytest.raises(UsageError, match="'destination' needs a location"):
        work(place)


@pytest.mark.parametrize(
    ("signer", "code"),
    [
        pytest.param(None, "SIGNER_MISSING", id="none"),
        pytest.param("file:/nowhere/key.pem", "KEY_MISSING", id="no-such-key"),
    ],
)
def test_signer_that_cannot_sign_is_found_before_the_work(tmp_path, signer, code):
    @sealflow.sealed(outputs=["destination"], signer=signer)
    def work(destination):
        pytest.fail("started")

    with pytest.raises(UsageError) as caught:
        work(tmp_path / "out.txt")
    assert caught.value.code == code


async def _coroutine(source): ...


def _generator(source):
    yield source


async def _async_generator(source):
    yield source


@pytest.mark.parametrize("function", [_coroutine, _generator, _async_generator])
def test_function_that_is_not_done_on_return_is_refused(function):
    """Its outputs would be signed, and its copies gone, before it starts."""
    with pytest.raises(UsageError, match="coroutine or a generator"):
        sealflow.sealed(inputs=["source"])(function)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        pytest.param({"inputs": ["other"]}, "no parameter 'other'", id="unknown"),
        pytest.param({"inputs": ["rest"]}, "no parameter 'rest'", id="variadic"),
        pytest.param({"outputs": ["options"]}, "no parameter 'options'", id="keywords"),
        pytest.param({"inputs": ["source"], "outputs": ["source"]}, "both an input and an output", id="both"),
    ],
)
def test_name_that_cannot_be_sealed_is_refused_at_once(names, message):
    def function(source, *rest, **options): ...

    with pytest.raises(UsageError, match=message):
        sealflow.sealed(**names)(function)


@pytest.mark.parametrize("where", ["argument", "surroundings"])
def test_encrypted_input_is_opened(tmp_path, key, trust, monkeypatch, where):
    from sealflow.actions.upload import upload

    (tmp_path / "team.key").write_bytes(bytes(range(32)))
    team = f"aes:{tmp_path}/team.key"
    (tmp_path / "in.txt").write_text("3")
    ref = upload(tmp_path / "in.txt", str(tmp_path / "in.enc"), recipients=team, signer=key.signer)
    if where == "surroundings":
        monkeypatch.setenv("SEALFLOW_RECIPIENTS", team)
    given = {"recipients": team} if where == "argument" else {}

    @sealflow.sealed(inputs=["source"], **given, **trust)
    def read(source):
        return Path(source).read_text()

    assert read(ref.as_dict()) == "3"
    monkeypatch.delenv("SEALFLOW_RECIPIENTS", raising=False)
    with pytest.raises(sealflow.SealflowError, match="RECIPIENT_MISSING"):
        sealflow.sealed(inputs=["source"], **trust)(lambda source: pytest.fail("opened"))(ref.as_dict())
