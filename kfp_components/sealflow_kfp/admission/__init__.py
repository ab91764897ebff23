"""Admission: what a Kubernetes API server asks before it takes a Workflow, a Pod or a PipelineVersion.

:func:`sealflow_kfp.admission.decide.decide` is the whole of it: bytes in, bytes out, nothing else is read or written.
"""
