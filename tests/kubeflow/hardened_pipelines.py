"""Pipelines as their authors write them: nothing in them knows of sealflow. Imports KFP."""

from typing import List  # noqa: UP035

from kfp import dsl


@dsl.component(base_image="python", install_kfp_package=False)
def make(model: dsl.Output[dsl.Model], text: str = "weights") -> int:
    with open(model.path, "w") as file:
        file.write(text)
    return len(text)


@dsl.component(base_image="python", install_kfp_package=False)
def make_folder(model: dsl.Output[dsl.Model]):
    import os

    os.makedirs(os.path.join(model.path, "deep"))
    for name in ("a.bin", "deep/b.bin"):
        with open(os.path.join(model.path, name), "w") as file:
            file.write(name)


@dsl.component(base_image="python", install_kfp_package=False)
def turn(source: dsl.Input[dsl.Artifact], turned: dsl.Output[dsl.Dataset]):
    import os

    names = sorted(os.listdir(source.path)) if os.path.isdir(source.path) else [""]
    with open(turned.path, "w") as target:
        for name in names:
            path = os.path.join(source.path, name) if name else source.path
            if os.path.isfile(path):
                with open(path) as file:
                    target.write(file.read()[::-1])


@dsl.component(base_image="python", install_kfp_package=False)
def read(source: dsl.Input[dsl.Artifact]) -> str:
    with open(source.path) as file:
        return file.read()


@dsl.component(base_image="python", install_kfp_package=False)
def join(parts: dsl.Input[List[dsl.Dataset]]) -> str:  # noqa: UP006
    texts = []
    for part in parts:
        with open(part.path) as file:
            texts.append(file.read())
    return ",".join(sorted(texts))


@dsl.component(base_image="python:3.11", packages_to_install=["numpy==2.0.0"])
def install(model: dsl.Output[dsl.Model]):
    with open(model.path, "w") as file:
        file.write("installed")


@dsl.container_component
def copy(source: dsl.Input[dsl.Artifact], copied: dsl.Output[dsl.Dataset]):
    return dsl.ContainerSpec(
        image="alpine",
        command=["sh", "-c", 'mkdir -p "$(dirname "$1")" && tr a-z A-Z < "$0" > "$1"'],
        args=[source.path, copied.path],
    )


@dsl.container_component
def bare(source: dsl.Input[dsl.Artifact]):
    return dsl.ContainerSpec(image="registry.example/bare:1", args=[source.path])


@dsl.pipeline
def inner(model: dsl.Input[dsl.Model]) -> dsl.Dataset:
    first = turn(source=model)
    return turn(source=first.outputs["turned"]).outputs["turned"]


@dsl.pipeline
def steps(text: str = "weights") -> str:
    made = make(text=text)
    copied = copy(source=made.outputs["model"])
    return read(source=copied.outputs["copied"]).output


@dsl.pipeline
def folders() -> str:
    return read(source=turn(source=make_folder().outputs["model"]).outputs["turned"]).output


@dsl.pipeline
def nested() -> str:
    one = inner(model=make(text="abc").outputs["model"])
    return read(source=one.output).output


@dsl.pipeline
def inner_of_text(text: str) -> dsl.Dataset:
    return turn(source=make(text=text).outputs["model"]).outputs["turned"]


@dsl.pipeline
def nested_text() -> str:
    # KFP 2.17's runner takes a nested pipeline, but none with an artifact as its input.
    return read(source=inner_of_text(text="abc").output).output


@dsl.pipeline
def twice() -> str:
    inner_of_text(text="abc")
    return read(source=inner_of_text(text="xyz").output).output


@dsl.pipeline
def branches(text: str = "weights"):
    made = make(text=text)
    with dsl.If(made.outputs["Output"] == 7):
        turned = turn(source=made.outputs["model"])
        read(source=turned.outputs["turned"])
    with dsl.Else():
        read(source=made.outputs["model"])


@dsl.pipeline
def loop():
    made = make()
    with dsl.ParallelFor(["a", "b", "c"]) as item:
        other = make(text=item)
        turn(source=other.outputs["model"])
        read(source=made.outputs["model"])


@dsl.pipeline
def collected() -> str:
    with dsl.ParallelFor(["ab", "cd"]) as item:
        turned = turn(source=make(text=item).outputs["model"])
    return join(parts=dsl.Collected(turned.outputs["turned"])).output


@dsl.pipeline
def one_of():
    made = make()
    with dsl.If(made.outputs["Output"] == 7):
        left = make(text="left")
    with dsl.Else():
        right = make(text="right")
    read(source=dsl.OneOf(left.outputs["model"], right.outputs["model"]))


@dsl.pipeline
def with_exit():
    last = make(text="last")
    with dsl.ExitHandler(last):
        read(source=make().outputs["model"])


@dsl.pipeline
def importing(uri: str):
    imported = dsl.importer(artifact_uri=uri, artifact_class=dsl.Model, reimport=True)
    inner(model=imported.output)


@dsl.component(base_image="python", install_kfp_package=False)
def score(model: dsl.Input[dsl.Model], scores: dsl.Output[dsl.Dataset]):
    with open(model.path) as file, open(scores.path, "w") as target:
        target.write(file.read()[::-1])


@dsl.pipeline(name="answer")
def scoring(uri: str):
    imported = dsl.importer(artifact_uri=uri, artifact_class=dsl.Model, reimport=True)
    score(model=imported.output)


@dsl.pipeline
def importing_verified(uri: str, digest: str) -> str:
    from sealflow_kfp import verified_import

    imported = verified_import(uri=uri, digest=digest)
    return read(source=turn(source=imported.outputs["artifact"]).outputs["turned"]).output


@dsl.pipeline
def installing():
    read(source=install().outputs["model"])


@dsl.pipeline
def without_command():
    bare(source=make().outputs["model"])


@dsl.component(base_image="python", install_kfp_package=False)
def find_and_overwrite(root: str):
    import glob

    paths = glob.glob(root + "/attacked-*/make/model")
    assert paths
    for path in paths:
        with open(path, "w") as file:
            file.write("planted")


@dsl.pipeline
def attacked(root: str) -> str:
    """A task that nobody gave the model writes over it between its producer and its consumer."""
    made = make()
    changed = find_and_overwrite(root=root).after(made)
    return read(source=made.outputs["model"]).after(changed).output


@dsl.component(base_image="python", install_kfp_package=False)
def check(model: dsl.Input[dsl.Model]) -> str:
    # Checks by itself, as its author was told to, and forgot to turn caching off.
    import sealflow_kfp

    with sealflow_kfp.verified_input(model) as path, open(path) as file:
        return file.read()


@dsl.pipeline
def checked_import(uri: str) -> str:
    imported = dsl.importer(artifact_uri=uri, artifact_class=dsl.Model, reimport=True)
    return check(model=imported.output).output


#: All that compile without an image of their own to be named.
ALL = (steps, folders, nested, nested_text, twice, branches, loop, collected, one_of, with_exit, importing, installing)
