"""Train a classifier of handwritten digits: data and model signed, each use of them from a checked copy.

Nothing is signed before the images are found to be those that DVC recorded. ``digits`` makes a model, which leaves the
task encrypted and lies nowhere in clear. ``digits_score`` scores a model that somebody else made, here or in Kubeflow
Pipelines: the reference says which bytes, the connection says whose signatures count and with which keys it is opened.
"""

import tempfile
from pathlib import Path

from airflow.sdk import dag, task

import sealflow
from sealflow_airflow import DvcLineageCheckOperator, SignArtifactOperator, VerifyArtifactOperator

RETRIES = {"retries": 2, "retry_delay": 0}


def read(folder: str, *, test: bool):
    """Return pixels and labels of every fifth image (test), or of the others."""
    paths = sorted(Path(folder).glob("*/*.pgm"))
    chosen = [path for number, path in enumerate(paths) if (number % 5 == 0) is test]
    return [list(map(int, path.read_text().split()[4:])) for path in chosen], [path.parent.name for path in chosen]


def accuracy(model_path: str, folder: str) -> float:
    import joblib

    # joblib runs whatever the file says, which is why only checked bytes get here.
    model = joblib.load(model_path)
    return float(model.score(*read(folder, test=True)))


@dag(schedule=None, params={"repository": "/var/lib/digits", "model": "/var/lib/models/digits.enc"})
def digits():
    gate = DvcLineageCheckOperator(
        task_id="check_lineage", repository="{{ params.repository }}", targets=["data/digits"], **RETRIES
    )
    data = SignArtifactOperator(
        task_id="sign_data", artifact="{{ ti.xcom_pull('check_lineage') }}/data/digits", name="digits"
    )
    gate >> data

    @task
    def train(data: dict, params: dict):
        import joblib
        from sklearn.linear_model import LogisticRegression

        with sealflow.verified(data, name="digits") as folder, tempfile.TemporaryDirectory() as private:
            model = LogisticRegression(max_iter=500).fit(*read(folder, test=False))
            joblib.dump(model, f"{private}/digits.joblib")
            # The provenance names the data, since this task verified it.
            return sealflow.upload(f"{private}/digits.joblib", params["model"], name="digits-model").as_dict()

    model = VerifyArtifactOperator(
        task_id="verify_model", artifact=train(data.output), name="digits-model", producer="airflow:digits/train"
    )

    @task(**RETRIES)
    def score(model: dict, data: dict):
        with sealflow.verified(model, name="digits-model") as path, sealflow.verified(data, name="digits") as folder:
            return accuracy(path, folder)

    score(model.output, data.output)


@dag(schedule=None, params={"model": {}, "data": {}}, render_template_as_native_obj=True)
def digits_score():
    model = VerifyArtifactOperator(
        task_id="verify_model", artifact="{{ params.model }}", name="digits-model", **RETRIES
    )

    @task(**RETRIES)
    def score(model: dict, params: dict):
        with sealflow.verified(model) as path, sealflow.verified(params["data"], name="digits") as folder:
            return accuracy(path, folder)

    score(model.output)


digits()
digits_score()
