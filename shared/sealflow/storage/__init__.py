"""Storage: where artifacts and evidence lie. One small protocol, one implementation per kind of place.

``local`` reads folders and files, ``s3`` reads S3 and its compatible stores through boto3, ``other`` reads any fsspec
URL.
"""

from sealflow.storage.base import Entry, Location, Reader, Storage
from sealflow.storage.resolve import Storages

__all__ = ["Entry", "Location", "Reader", "Storage", "Storages"]
