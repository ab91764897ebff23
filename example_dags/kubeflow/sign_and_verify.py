"""Sign what a task made, and let nothing pass that is not what was signed.

Who signs and who may sign stand in the settings: on a cluster in a mounted secret, on your machine in a folder that
``SEALFLOW_MOUNT`` names. Run it here with ``python sign_and_verify.py``.
"""

from kfp import dsl

# [start pipeline]
from sealflow_kfp import default_image, mount, sign_artifact, verify_artifact


@dsl.component(base_image=default_image(), install_kfp_package=False)
def train(model: dsl.Output[dsl.Model]):
    with open(model.path, "w") as file:
        file.write('{"slope": 2.0, "intercept": 1.0}')


@dsl.pipeline
def sign_and_verify():
    model = train().outputs["model"]
    signed = mount(sign_artifact(artifact=model), secret="sealflow")
    mount(verify_artifact(artifact=model, evidence=signed.outputs["evidence"], name="model"), secret="sealflow")


# [end pipeline]


if __name__ == "__main__":
    from kfp import local

    local.init(runner=local.SubprocessRunner(use_venv=False), raise_on_error=True)
    sign_and_verify()
