"""Take an artifact that was signed elsewhere, such as in an Airflow DAG, and check it before anything uses it.

``ref`` is what the signer returned. It pins the digest, so an older version, signed as well, is refused too; and it
says where the evidence lies.
"""

from kfp import dsl

from sealflow_kfp import mount, verify_artifact


@dsl.pipeline
def verify_import(uri: str, ref: str, name: str):
    imported = dsl.importer(artifact_uri=uri, artifact_class=dsl.Artifact, reimport=True)
    mount(verify_artifact(artifact=imported.output, expected_ref=ref, name=name), secret="sealflow")


if __name__ == "__main__":
    import sys

    from kfp import local

    local.init(runner=local.SubprocessRunner(use_venv=False), raise_on_error=True)
    verify_import(uri=sys.argv[1], ref=sys.argv[2], name=sys.argv[3])
