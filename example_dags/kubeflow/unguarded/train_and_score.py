"""A pipeline that knows nothing of sealflow. What it compiles to is guarded by ``sealflow kfp harden``."""

from kfp import dsl


# [start pipeline]
@dsl.component(base_image="registry.example/train:1", install_kfp_package=False)
def train(model: dsl.Output[dsl.Model], slope: float):
    with open(model.path, "w") as file:
        file.write(str(slope))


@dsl.component(base_image="registry.example/train:1", install_kfp_package=False)
def score(model: dsl.Input[dsl.Model], x: float) -> float:
    with open(model.path) as file:
        return float(file.read()) * x


@dsl.pipeline
def train_and_score(slope: float = 2.0, x: float = 10.0) -> float:
    trained = train(slope=slope)
    return score(model=trained.outputs["model"], x=x).output


# [end pipeline]

if __name__ == "__main__":
    from kfp import compiler

    compiler.Compiler().compile(train_and_score, "pipeline.yaml")
