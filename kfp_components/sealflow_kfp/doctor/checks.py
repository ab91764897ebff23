"""Every check of a cluster by its name, in the order in which they are shown: what must hold, what to do otherwise."""

from __future__ import annotations

from typing import Final

from sealflow_kfp.doctor.report import Check

CHECKS: Final[dict[str, Check]] = {
    "cluster": Check("a cluster with the namespace of Kubeflow Pipelines", "Name it: --kubeflow-namespace."),
    "workflows": Check("a cluster that knows Argo's Workflows", "Install Kubeflow Pipelines."),
    "enforcement": Check(
        "an admission server or Kyverno's policies that refuse whatever is not guarded",
        "Install one of them; docs/how-to/kubeflow-cluster.md says which.",
    ),
    "webhook": Check(
        "webhooks of sealflow's for Workflows and pods, what is added to pods, and who comes into them, with no"
        " condition on objects",
        "Apply deploy/kubeflow, or skip the webhook checks where Kyverno does it.",
    ),
    "webhook_mode": Check(
        "an admission server that refuses, and does not only tell", "Apply deploy/kubeflow/overlays/enforce."
    ),
    "webhook_failure_policy": Check("refusal where the admission server does not answer", "Set failurePolicy: Fail."),
    "webhook_namespaces": Check(
        "webhooks that are asked about every namespace with runs", "Label the namespace: sealflow/guard=true."
    ),
    "webhook_authority": Check(
        "a certificate authority that stays good for --days", "Renew it, and the caBundle of the webhooks."
    ),
    "webhook_certificate": Check(
        "a server's certificate that stays good for --days", "Renew the certificate; the server reads it again."
    ),
    "webhook_endpoints": Check(
        "a ready pod behind the webhooks' service", "Look at the pods of the admission server: kubectl describe."
    ),
    "kyverno": Check(
        "Kyverno's policies as this release generates them, in force",
        "Apply what `sealflow kfp kyverno` writes, or skip the check where the admission server does it.",
    ),
    "refusal": Check("a cluster that refuses an unguarded pod", "Look which gate is asked about the namespace."),
    "spec_patch": Check(
        "a COMPILED_PIPELINE_SPEC_PATCH as `sealflow kfp spec-patch` writes it",
        "Set it, or skip the check where the admission server mounts the guard.",
    ),
    "caching": Check(
        "CACHEENABLED=false, since a cached task verifies nothing", "Set it on the Deployment ml-pipeline."
    ),
    "runs_cached": Check(
        "caching off in the latest runs", "Harden these pipelines, or switch caching off on the cluster."
    ),
    "runs_guarded": Check("the wrapper before every task of the latest runs", "Harden them, or install a gate."),
    "publish_logs": Check(
        "PUBLISH_LOGS other than true, since logs hold every parameter and lie in clear beside the artifacts",
        "Set PUBLISH_LOGS=false, or skip the check with the reason.",
    ),
    "launcher_image": Check("V2_LAUNCHER_IMAGE by digest", "Write it as name@sha256:…."),
    "driver_image": Check("V2_DRIVER_IMAGE by digest", "Write it as name@sha256:…."),
    "native_mode": Check(
        "pipelines in KFP's database, or rights to make PipelineVersions for nobody but who releases pipelines",
        "See who may create pipelineversions.pipelines.kubeflow.org: kubectl auth who-can, or RBAC.",
        advisory=True,
    ),
    "secret": Check("the secret with settings and keys in every namespace with runs", "Create it there."),
    "policy_config_map": Check(
        "the config map with admin.json in every namespace with runs", "Create it there; tasks do not start without."
    ),
    "launcher_config": Check(
        "a config map kfp-launcher with the place of artifacts in every namespace with runs",
        "Without one artifacts of all namespaces lie in one place.",
        advisory=True,
    ),
    "task_accounts": Check(
        "accounts of tasks that cannot make Workflows or pods, come into pods, become other accounts, list secrets, or"
        " change config maps",
        "Take these rights out of their roles.",
    ),
    "workflow_creators": Check(
        "nobody who makes Workflows but KFP itself",
        "Take the right away, name who may (--allow), or rely on a gate that judges whoever made it.",
        advisory=True,
    ),
    "pod_creators": Check(
        "nobody who makes or changes pods where runs are, or what makes pods, but Argo's controller",
        "Take the right away, name who may (--allow), or rely on a gate that judges whoever made it.",
        advisory=True,
    ),
    "pod_visitors": Check(
        "nobody who comes into pods where runs are: pods/exec reaches the keys of a task, and nodes/proxy those of all",
        "Take the right away, or name who may: --allow.",
    ),
    "key_readers": Check(
        "nobody who reads the secret with the tasks' keys, or gets tokens of their accounts",
        "Take the right away, or name who may: --allow.",
    ),
    "policy_writers": Check(
        "nobody who changes the policy's config map or the Deployment ml-pipeline",
        "Take the right away, or name who may: --allow.",
    ),
    "gate_changers": Check(
        "nobody who changes namespaces with runs, takes off their label, changes webhooks, policies of admission, their"
        " exceptions, or what a gate runs where it runs, or can become somebody who does",
        "Take the right away, or name who may: --allow.",
    ),
}
