"""Manifests: an artifact's ordered list of files with their digests, and the two digests over it."""

from sealflow.manifest.build import build_manifest
from sealflow.manifest.model import FILES_SHA256, Manifest, Resource, Serialization

__all__ = ["FILES_SHA256", "Manifest", "Resource", "Serialization", "build_manifest"]
