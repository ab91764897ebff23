"""Train a classifier of handwritten digits: data and model signed, each use of them from a checked copy.

Nothing is signed before the images are found to be those that DVC recorded. ``digits`` makes a model. ``digits_score``
scores a model that somebody else made, here or in Airflow: the reference says which bytes, the mounted settings say
whose signatures count.

Run one here: ``python digits.py digits '{"repository": "/repo", "data": "/repo/data/digits"}' /tmp/run/outputs.json``.
"""

from typing import NamedTuple

from kfp import dsl

from sealflow_kfp import check_dvc_lineage, default_image, mount, sign_artifact, verify_artifact

component = dsl.component(base_image=default_image(), install_kfp_package=False)


@component
def train(data: str, model: dsl.Output[dsl.Model]) -> str:
    from pathlib import Path

    import joblib
    from sklearn.svm import SVC

    import sealflow
    import sealflow_kfp

    with sealflow.verified(data, name="digits") as folder:
        paths = [path for number, path in enumerate(sorted(Path(folder).glob("*/*.pgm"))) if number % 5]
        pixels = [list(map(int, path.read_text().split()[4:])) for path in paths]
        trained = SVC(gamma=0.001).fit(pixels, [path.parent.name for path in paths])
    joblib.dump(trained, model.path)
    # The provenance names the data, since this task verified it. It travels in the model's metadata.
    return sealflow_kfp.sign_output(model, name="digits-model").to_json()


@component
def score(model: str, data: str) -> float:
    from pathlib import Path

    import joblib

    import sealflow

    with sealflow.verified(model, name="digits-model") as path, sealflow.verified(data, name="digits") as folder:
        images = sorted(Path(folder).glob("*/*.pgm"))[::5]
        pixels = [list(map(int, image.read_text().split()[4:])) for image in images]
        # joblib runs whatever the file says, which is why only checked bytes get here.
        return float(joblib.load(path).score(pixels, [image.parent.name for image in images]))


class Digits(NamedTuple):
    accuracy: float
    model: str
    data: str
    verdict: str


class Score(NamedTuple):
    accuracy: float
    verdict: str


@dsl.pipeline
def digits(repository: str, data: str) -> Digits:
    tracked = dsl.importer(artifact_uri=repository, artifact_class=dsl.Dataset, reimport=True)
    gate = mount(check_dvc_lineage(artifact=tracked.output, targets=["data/digits"]), secret="sealflow")
    folder = dsl.importer(artifact_uri=data, artifact_class=dsl.Dataset, reimport=True)
    signed = mount(sign_artifact(artifact=folder.output, name="digits"), secret="sealflow").after(gate)
    trained = mount(train(data=signed.outputs["ref"]), secret="sealflow")
    checked = verify_artifact(
        artifact=trained.outputs["model"],
        name="digits-model",
        producer="kfp:digits/train",
        expected_ref=trained.outputs["Output"],
    )
    mount(checked, secret="sealflow")
    scored = mount(score(model=checked.outputs["ref"], data=signed.outputs["ref"]), secret="sealflow")
    return Digits(scored.output, trained.outputs["Output"], signed.outputs["ref"], checked.outputs["verdict"])


@dsl.pipeline
def digits_score(model_uri: str, model: str, data: str) -> Score:
    imported = dsl.importer(artifact_uri=model_uri, artifact_class=dsl.Model, reimport=True)
    checked = mount(
        verify_artifact(artifact=imported.output, expected_ref=model, name="digits-model"), secret="sealflow"
    )
    scored = mount(score(model=checked.outputs["ref"], data=data), secret="sealflow")
    return Score(scored.output, checked.outputs["verdict"])


if __name__ == "__main__":
    import json
    import os
    import sys

    from kfp import local

    _, name, parameters, destination = sys.argv
    root = os.path.dirname(destination)
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=root, raise_on_error=True)
    outputs = {"digits": digits, "digits_score": digits_score}[name](**json.loads(parameters)).outputs
    with open(destination, "w") as file:
        json.dump({key: value for key, value in outputs.items() if isinstance(value, (str, float))}, file)
