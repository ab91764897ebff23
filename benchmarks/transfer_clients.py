"""The programs that the benchmarks of transfers run, each a process of its own: ours, and its peers."""

from __future__ import annotations

CLIENT = """
import os, sys
import boto3
from botocore.config import Config
config = Config(s3={"addressing_style": "path"}, max_pool_connections=16,
                request_checksum_calculation="when_required", response_checksum_validation="when_required")
client = boto3.client("s3", config=config)
"""

PLAIN_UP = CLIENT + "client.upload_file(sys.argv[1], sys.argv[2], 'plain')"
PLAIN_DOWN = CLIENT + "client.download_file(sys.argv[2], 'plain', sys.argv[1])"

UP = """
import sys
from sealflow.actions.upload import upload
ref = upload(sys.argv[1], f"s3://{sys.argv[2]}/{sys.argv[3]}", recipients="aes:" + sys.argv[4],
             signer="file:" + sys.argv[5], overwrite=True)
open(sys.argv[6], "w").write(ref.to_json())
"""

DOWN = """
import sys
from sealflow.actions.download import download
download(open(sys.argv[6]).read(), sys.argv[1], recipients="aes:" + sys.argv[4], identities=sys.argv[5] + ".pub",
         overwrite=True)
"""

# Cut as an artifact of so many bytes is cut, for the memory that its parts take.
CUT = """
from sealflow.transfer.send import Shape
of = Shape.of
Shape.of = classmethod(lambda cls, size, most_parts: of({size}, most_parts))
"""

# As boto3 uploads many files: its own transfer manager and threads.
MANY = (
    CLIENT
    + """
from s3transfer.manager import TransferConfig, TransferManager
with TransferManager(client, TransferConfig(max_request_concurrency=10)) as manager:
    for folder, _, names in os.walk(sys.argv[1]):
        for name in names:
            path = os.path.join(folder, name)
            manager.upload(path, sys.argv[2], "many/" + os.path.relpath(path, sys.argv[1]))
"""
)

# Counts what its client is answered, with lists and evidence; answers of S3 that stand in the middle count too.
_COUNTED = (
    CLIENT
    + """
import json, random, time
from sealflow.actions.reading import reading
from sealflow.storage import Storages
bucket, aes, key, ref = sys.argv[1], sys.argv[2], sys.argv[3], open(sys.argv[4]).read()
counted = {"requests": 0, "bytes": 0}
def after(parsed, http_response, **rest):
    counted["requests"] += 1
    counted["bytes"] += int(http_response.headers.get("Content-Length", 0))
client.meta.events.register("after-call.s3", after)
"""
)

OPEN = (
    _COUNTED
    + """
start = time.perf_counter()
with reading(ref, recipients="aes:" + aes, identities=key + ".pub", storages=Storages(client)) as artifact:
    took, opened = time.perf_counter() - start, dict(counted)
    assert artifact.verdict.passed
    [member] = artifact.files
    assert member.size == int(sys.argv[5]), member.size
print(json.dumps({"opened": opened, "took": took}))
"""
)

RANDOM = (
    _COUNTED
    + """
size = int(sys.argv[5])
times = {"plain": [], "ours": []}
with reading(ref, recipients="aes:" + aes, identities=key + ".pub", storages=Storages(client)) as artifact:
    opened = dict(counted)
    name = artifact.files[0].name
    for turn in range(220):
        at = random.randrange(size - 65536)
        start = time.perf_counter()
        plain = client.get_object(Bucket=bucket, Key="plain", Range=f"bytes={at}-{at + 65535}")["Body"].read()
        middle = time.perf_counter()
        ours = artifact.read(name, at, 65536)
        end = time.perf_counter()
        assert ours == plain
        if turn >= 20:
            times["plain"].append(middle - start)
            times["ours"].append(end - middle)
print(json.dumps({**times, "open": opened}))
"""
)

SMALL = (
    CLIENT
    + """
import json, socket, time
from sealflow.actions.upload import upload
from sealflow.actions.download import download
from sealflow.storage import Storages
bucket, aes, key, folder = sys.argv[1:5]
spent = [0.0]
waits = socket.SocketIO.readinto
def timed(self, buffer):
    start = time.perf_counter()
    try:
        return waits(self, buffer)
    finally:
        spent[0] += time.perf_counter() - start
socket.SocketIO.readinto = timed  # whatever a client waits for an answer, it waits here
found = {"up": [], "down": []}
for turn in range(22):
    source = os.path.join(folder, "small")
    with open(source, "wb") as file:
        file.write(os.urandom(1024))
    for what in ("up", "down"):
        spent[0] = 0.0
        start = time.perf_counter()
        if what == "up":
            ref = upload(source, f"s3://{bucket}/small", recipients="aes:" + aes, signer="file:" + key, overwrite=True,
                         storages=Storages(client))
        else:
            download(ref, os.path.join(folder, "small.back"), recipients="aes:" + aes, identities=key + ".pub",
                     overwrite=True, storages=Storages(client))
        if turn >= 2:
            found[what].append(time.perf_counter() - start - spent[0])
print(json.dumps(found))
"""
)

# The S3 Encryption Client, which takes keys from AWS KMS only. KMS is played in its process, so that it never waits for
# one: what it wraps is bound to the encryption context, as KMS binds it.
_SEALING_CLIENT = (
    CLIENT
    + """
import json
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from s3_encryption import S3EncryptionClient, S3EncryptionClientConfig
from s3_encryption.materials.kms_keyring import KmsKeyring
KEY = "arn:aws:kms:us-east-1:111122223333:key/2d5bc2a1-5cd5-4b5f-8b5c-000000000001"
master = AESGCM(open(sys.argv[3], "rb").read())
def bound(context):
    return json.dumps(context, sort_keys=True).encode()
def generate_data_key(KeyId, KeySpec, EncryptionContext):
    assert (KeyId, KeySpec) == (KEY, "AES_256")
    plain, nonce = os.urandom(32), os.urandom(12)
    return {"KeyId": KEY, "Plaintext": plain,
            "CiphertextBlob": nonce + master.encrypt(nonce, plain, bound(EncryptionContext))}
def decrypt(KeyId, CiphertextBlob, EncryptionContext):
    assert KeyId == KEY
    plain = master.decrypt(CiphertextBlob[:12], CiphertextBlob[12:], bound(EncryptionContext))
    return {"KeyId": KEY, "Plaintext": plain}
kms = boto3.client("kms")
kms.generate_data_key, kms.decrypt = generate_data_key, decrypt
def sealing(**more):
    return S3EncryptionClient(client, S3EncryptionClientConfig(KmsKeyring(kms, KEY), **more))
context = {"artifact": "churn"}
"""
)

SEALING_UP = (
    _SEALING_CLIENT + "sealing().upload_file(sys.argv[1], sys.argv[2], 's3-encryption', EncryptionContext=context)"
)

_SEALING_READ = """
body = sealing({more}).get_object(Bucket=sys.argv[2], Key="s3-encryption", EncryptionContext=context)["Body"]
with open(sys.argv[1], "wb") as target:
    while data := body.read(8 << 20):
        target.write(data)
"""

SEALING_DOWN = _SEALING_CLIENT + _SEALING_READ.format(more="")
# What it releases before the tag at the end was checked.
SEALING_DOWN_EARLY = _SEALING_CLIENT + _SEALING_READ.format(more="enable_delayed_authentication=True")
