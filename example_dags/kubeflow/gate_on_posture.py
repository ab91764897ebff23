"""Read from a bucket only while it is set up as it should be.

The gate asks S3, KMS and CloudTrail how the bucket and its key are set up; `PASS`, `FAIL` or `UNKNOWN` for each check
stands in its log. What is left out needs a reason, which every verdict shows.
"""

from kfp import dsl

from sealflow_kfp import check_posture, default_image, mount


@dsl.component(base_image=default_image(), install_kfp_package=False)
def score(model: str) -> int:
    import os

    import sealflow

    with sealflow.verified(model, name="churn") as path:
        return os.path.getsize(path)


@dsl.pipeline
def gate_on_posture(model: str, location: str = "s3://models/churn/") -> int:
    gate = mount(
        check_posture(location=location, skip={"mfa_delete": "object lock protects the versions"}), secret="sealflow"
    )
    scored = mount(score(model=model), secret="sealflow").after(gate)
    return scored.output
