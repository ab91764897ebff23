"""Pipelines for the local runner. Imports KFP, so tests import this inside their functions."""

from kfp import dsl

from sealflow_kfp import (
    check_dvc_lineage,
    encrypted_download,
    encrypted_upload,
    promote_artifact,
    sign_artifact,
    verify_artifact,
)


@dsl.component(base_image="python", install_kfp_package=False)
def make_model(model: dsl.Output[dsl.Model], password: str = ""):
    import os

    os.makedirs(model.path)
    for name in ("weights.bin", "config.json"):
        with open(os.path.join(model.path, name), "w") as file:
            file.write(name)


@dsl.component(base_image="python", install_kfp_package=False)
def make_signed_model(model: dsl.Output[dsl.Model], password: str = "") -> str:
    import os

    import sealflow_kfp

    os.makedirs(model.path)
    for name in ("weights.bin", "config.json"):
        with open(os.path.join(model.path, name), "w") as file:
            file.write(name)
    model.metadata["framework"] = "none"
    return sealflow_kfp.sign_output(model).to_json()


@dsl.component(base_image="python", install_kfp_package=False)
def flip_byte(model: dsl.Input[dsl.Model]):
    with open(model.path + "/weights.bin", "r+b") as file:
        file.write(b"W")


@dsl.component(base_image="python", install_kfp_package=False)
def strip_sidecars(model: dsl.Input[dsl.Model]) -> int:
    # What a launcher does: nothing but the artifact's own path comes along.
    import os
    import shutil

    run = os.path.dirname(os.path.dirname(model.path))
    found = [os.path.join(at, name) for at, names, _ in os.walk(run) for name in names if name.endswith("evidence")]
    for path in found:
        shutil.rmtree(path)
    return len(found)


@dsl.component(base_image="python", install_kfp_package=False)
def consume(model: dsl.Input[dsl.Model], password: str = "") -> str:
    import os

    import sealflow_kfp

    with sealflow_kfp.verified_input(model, name="model") as path:
        assert path != model.path
        return ",".join(sorted(os.listdir(path)))


@dsl.component(base_image="python", install_kfp_package=False)
def consume_with_evidence(model: dsl.Input[dsl.Model], evidence: dsl.Input[dsl.Artifact], ref: str) -> str:
    import os

    import sealflow_kfp

    with sealflow_kfp.verified_input(model, evidence=evidence, expected_ref=ref) as path:
        return ",".join(sorted(os.listdir(path)))


@dsl.component(base_image="python", install_kfp_package=False)
def core_only(model: dsl.Input[dsl.Model], copy: dsl.Output[dsl.Model]) -> str:
    import shutil

    import sealflow

    @sealflow.sealed(inputs=["source"], outputs=["target"])
    def work(source, target):
        shutil.copytree(source, target)

    return sealflow.ArtifactRef.parse(work(model.path, copy.path)).to_json()


@dsl.pipeline
def gate() -> str:
    model = make_model().outputs["model"]
    signed = sign_artifact(artifact=model)
    checked = verify_artifact(
        artifact=model,
        evidence=signed.outputs["evidence"],
        name="model",
        producer="kfp:gate/sign-artifact",
        expected_ref=signed.outputs["ref"],
    )
    used = consume_with_evidence(model=model, evidence=signed.outputs["evidence"], ref=checked.outputs["ref"])
    return used.output


@dsl.pipeline
def gate_after_change():
    model = make_model().outputs["model"]
    signed = sign_artifact(artifact=model)
    changed = flip_byte(model=model).after(signed)
    verify_artifact(artifact=model, evidence=signed.outputs["evidence"]).after(changed)


@dsl.pipeline
def gate_after_strip():
    model = make_model().outputs["model"]
    signed = sign_artifact(artifact=model)
    stripped = strip_sidecars(model=model).after(signed)
    verify_artifact(artifact=model, evidence=signed.outputs["evidence"]).after(stripped)


@dsl.pipeline
def bodies(password: str) -> str:
    made = make_signed_model(password=password)
    stripped = strip_sidecars(model=made.outputs["model"])
    used = consume(model=made.outputs["model"], password=password).after(stripped)
    verify_artifact(artifact=made.outputs["model"], expected_ref=made.outputs["Output"]).after(used)
    return used.output


@dsl.pipeline
def bodies_of_the_core() -> str:
    made = make_signed_model()
    return core_only(model=made.outputs["model"]).outputs["Output"]


@dsl.pipeline
def verify_again(uri: str):
    imported = dsl.importer(artifact_uri=uri, artifact_class=dsl.Model, reimport=True)
    verify_artifact(artifact=imported.output)


@dsl.pipeline
def loop() -> str:
    model = make_model().outputs["model"]
    signed = sign_artifact(artifact=model)
    with dsl.ParallelFor(["weights.bin", "config.json"]) as _:
        verify_artifact(artifact=model, evidence=signed.outputs["evidence"], files=["weights.bin"])
    return signed.outputs["ref"]


@dsl.component(base_image="python", install_kfp_package=False)
def score(model: dsl.Input[dsl.Model], scores: dsl.Output[dsl.Dataset]) -> str:
    import sealflow_kfp

    with sealflow_kfp.verified_input(model) as path, open(path) as file:
        text = file.read()
    with open(scores.path, "w") as file:
        file.write(text[::-1])
    # No signer anywhere: the policy or the settings name it.
    return sealflow_kfp.sign_output(scores).to_json()


@dsl.pipeline
def answer(uri: str) -> str:
    imported = dsl.importer(artifact_uri=uri, artifact_class=dsl.Model, reimport=True)
    checked = verify_artifact(artifact=imported.output)
    return score(model=imported.output).after(checked).outputs["Output"]


@dsl.component(base_image="python", install_kfp_package=False)
def read_file(repository: str, name: str) -> str:
    import os

    with open(os.path.join(repository, name)) as file:
        return file.read()


@dsl.pipeline
def lineage(repository: str, targets: list, level: str, allowed_signers: str, branch: str) -> str:
    gate = check_dvc_lineage(
        repository=repository, targets=targets, level=level, allowed_signers=allowed_signers, branch=branch
    )
    return read_file(repository=gate.outputs["repository"], name="clean.csv").output


@dsl.pipeline
def transfer(store: str) -> str:
    model = make_model().outputs["model"]
    sent = encrypted_upload(artifact=model, destination=f"{store}/dev/model.enc", name="model")
    checked = verify_artifact(expected_ref=sent.outputs["ref"], name="model")
    promoted = promote_artifact(
        source=checked.outputs["ref"],
        destination=f"{store}/prod/model.enc",
        producer="kfp:transfer/encrypted-upload",
    )
    fetched = encrypted_download(source=promoted.outputs["ref"])
    # The metadata alone verifies what was fetched.
    used = consume(model=fetched.outputs["artifact"])
    return used.output


@dsl.pipeline
def fetch(source: str, recipients: str):
    fetched = encrypted_download(source=source, recipients=recipients)
    consume(model=fetched.outputs["artifact"])
