"""Review who touched the models in the last seven days.

The log is verified first; one that does not verify fails the task, and so do accesses that the policy does not allow.
Whatever else is found stands in the page.
"""

from kfp import dsl

from sealflow_kfp import audit_access, default_image, mount


@dsl.component(base_image=default_image(), install_kfp_package=False)
def count_refused(report: dsl.Input[dsl.Artifact]) -> int:
    import json

    with open(report.path) as file:
        return sum(item["refused"] for item in json.load(file)["principals"])


@dsl.pipeline
def review_accesses(since: str = "7d") -> int:
    review = mount(audit_access(since=since, fail_on=["ACCESS_NOT_ALLOWED"]), secret="sealflow")
    return mount(count_refused(report=review.outputs["report"]), secret="sealflow").output
