"""Train only on data that is what the DVC repository says it is.

The gate reads every byte of what the stage `clean` needs and makes, trusts no file time and no cache, and runs nothing
of the repository. `L2` holds data, lock, `dvc.yaml` and parameters against each other; `L3` asks for a signed commit
too. Run it here with ``python gate_on_lineage.py /path/to/repository``.
"""

from kfp import dsl

from sealflow_kfp import check_dvc_lineage, default_image, mount


@dsl.component(base_image=default_image(), install_kfp_package=False)
def train(repository: dsl.Input[dsl.Dataset], model: dsl.Output[dsl.Model]) -> float:
    import csv
    import json
    import os

    import sealflow_kfp

    with open(os.path.join(repository.path, "clean.csv"), newline="") as file:
        points = [(float(x), float(y)) for x, y in csv.reader(file)]
    mean_x, mean_y = (sum(column) / len(points) for column in zip(*points, strict=True))
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    with open(model.path, "w") as file:
        json.dump({"slope": slope, "intercept": mean_y - slope * mean_x}, file)
    sealflow_kfp.sign_output(model, name="line")
    return slope


@dsl.pipeline
def gate_on_lineage(uri: str) -> float:
    repository = dsl.importer(artifact_uri=uri, artifact_class=dsl.Dataset, reimport=True).output
    gate = mount(check_dvc_lineage(artifact=repository, targets=["clean"], level="L2"), secret="sealflow")
    trained = mount(train(repository=repository), secret="sealflow").after(gate)
    return trained.outputs["Output"]


if __name__ == "__main__":
    import sys

    from kfp import local

    local.init(runner=local.SubprocessRunner(use_venv=False), raise_on_error=True)
    print(gate_on_lineage(uri=sys.argv[1]).output)
