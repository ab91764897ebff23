"""sealflow for Kubeflow Pipelines."""
