"""Storage: where artifacts and evidence lie. One small protocol, one implementation per kind of place.

``local`` reads and writes folders and files, ``s3`` S3 and its compatible stores through boto3, ``other`` any fsspec
URL.
"""

from sealflow.storage.base import Entry, Location, OpenObject, Outgoing, Reader, Storage, Unfinished, same_part
from sealflow.storage.resolve import Storages, reads

__all__ = [
    "Entry",
    "Location",
    "OpenObject",
    "Outgoing",
    "Reader",
    "Storage",
    "Storages",
    "Unfinished",
    "reads",
    "same_part",
]
