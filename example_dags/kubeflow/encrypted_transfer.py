"""Train, store the model encrypted, bring it to production with all its evidence, and use it there.

The settings say with ``recipients`` who can open it: on a cluster in a mounted secret, on your machine in a folder that
``SEALFLOW_MOUNT`` names. ``score`` opens the encrypted object itself and leaves nothing behind. Run it here with
``python encrypted_transfer.py /tmp/models``.
"""

from kfp import dsl

from sealflow_kfp import default_image, encrypted_download, encrypted_upload, mount, promote_artifact

component = dsl.component(base_image=default_image(), install_kfp_package=False)


@component
def train(model: dsl.Output[dsl.Model]):
    import json
    import os

    os.makedirs(model.path)
    with open(os.path.join(model.path, "weights.json"), "w") as file:
        json.dump({"slope": 2.0, "intercept": 1.0}, file)
    with open(os.path.join(model.path, "README.md"), "w") as file:
        file.write("A line through points.\n")


@component
def score(model: str, x: float) -> float:
    import json
    import os

    import sealflow

    with sealflow.verified(model, name="line") as path, open(os.path.join(path, "weights.json")) as file:
        line = json.load(file)
    return line["slope"] * x + line["intercept"]


@component
def read_me(model: dsl.Input[dsl.Model]) -> str:
    import os

    import sealflow_kfp

    with sealflow_kfp.verified_input(model, name="line") as path, open(os.path.join(path, "README.md")) as file:
        return file.read()


@dsl.pipeline
def encrypted_transfer(store: str, x: float = 10.0) -> float:
    made = train()
    sent = encrypted_upload(artifact=made.outputs["model"], destination=f"{store}/dev/line.enc", name="line")
    promoted = promote_artifact(
        source=sent.outputs["ref"],
        destination=f"{store}/prod/line.enc",
        producer="kfp:encrypted-transfer/encrypted-upload",
    )
    scored = score(model=promoted.outputs["ref"], x=x)
    # For programs that want a file: the output lies in the pipeline root in clear.
    fetched = encrypted_download(source=promoted.outputs["ref"], name="line")
    read = read_me(model=fetched.outputs["artifact"])
    for task in (sent, promoted, scored, fetched, read):
        mount(task, secret="sealflow")
    return scored.output


if __name__ == "__main__":
    import sys

    from kfp import local

    local.init(runner=local.SubprocessRunner(use_venv=False), raise_on_error=True)
    print(encrypted_transfer(store=sys.argv[1]).output)
