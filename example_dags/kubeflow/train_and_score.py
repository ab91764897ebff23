"""Sign in the task that makes an artifact; use a checked copy in the task that needs it.

Nothing can change between check and use, and no further task is needed. The provenance travels in the artifact's
metadata, so the consumer needs no evidence store.
"""

from kfp import dsl

from sealflow_kfp import default_image, mount


@dsl.component(base_image=default_image(), install_kfp_package=False)
def make_data(points: int, data: dsl.Output[dsl.Dataset]):
    import sealflow_kfp

    with open(data.path, "w") as file:
        file.writelines(f"{x},{2 * x + 1}\n" for x in range(points))
    sealflow_kfp.sign_output(data)


@dsl.component(base_image=default_image(), install_kfp_package=False)
def train(data: dsl.Input[dsl.Dataset], model: dsl.Output[dsl.Model]):
    import json
    import os

    import sealflow_kfp

    with sealflow_kfp.verified_input(data, name="data") as path, open(path) as file:
        rows = [tuple(map(float, line.split(","))) for line in file]
    xs, ys = zip(*rows, strict=True)
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in rows) / sum((x - mean_x) ** 2 for x in xs)
    os.makedirs(model.path)
    with open(os.path.join(model.path, "weights.json"), "w") as file:
        json.dump({"slope": slope, "intercept": mean_y - slope * mean_x}, file)
    with open(os.path.join(model.path, "README.md"), "w") as file:
        file.write("A line through points.\n")
    # The provenance names the data: it was verified in this task.
    sealflow_kfp.sign_output(model)


@dsl.component(base_image=default_image(), install_kfp_package=False)
def score(model: dsl.Input[dsl.Model], x: float) -> float:
    import json
    import os

    import sealflow_kfp

    with (
        sealflow_kfp.verified_input(model, name="model", producer="kfp:train-and-score/train") as path,
        open(os.path.join(path, "weights.json")) as file,
    ):
        weights = json.load(file)
    return weights["slope"] * x + weights["intercept"]


@dsl.pipeline
def train_and_score(points: int = 20, x: float = 10.0) -> float:
    made = make_data(points=points)
    trained = train(data=made.outputs["data"])
    scored = score(model=trained.outputs["model"], x=x)
    for task in (made, trained, scored):
        mount(task, secret="sealflow")
    return scored.output


if __name__ == "__main__":
    from kfp import local

    local.init(runner=local.SubprocessRunner(use_venv=False), raise_on_error=True)
    print(train_and_score().output)
