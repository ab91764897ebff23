"""Encryption by itself: a file in memory to nowhere and back, with other formats' libraries in the same run.

In memory, so that only cipher and framing are measured. Peers: the bare cipher of ``cryptography``, tink, and the
official AWS Encryption SDK. tink has an environment of its own, as it needs another release of a library than we do.
The libraries of others allocate anew for each frame, and lose most of their time where malloc hands that memory back
to the kernel each time; so for them, and not for ours, malloc is told to keep it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks import peers
from benchmarks.measure import environment, python
from benchmarks.table import Missing, Rate

BOUND = 4.5
_TINK_NAME = "tink: streaming AES256_GCM_HKDF_1MB"
_SDK_NAME = "aws-encryption-sdk: unsigned, 1 MiB frames"
#: Of glibc, for peers: see the module.
_KEEP = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 28),
    "MALLOC_TOP_PAD_": str(1 << 26),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 28),
}

_OURS = """
import json, mmap, sys, threading, time
from sealflow.encryption import Layout, MessageDecryptor, MessageEncryptor, load_recipient
key, source, what, threads = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
recipient = load_recipient("aes:" + key)
with open(source, "rb") as file:
    content = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))

def run(count, make):
    numbers = iter(range(1, count + 1))  # threads share it: a step of it is not interrupted
    def loop():
        do = make()
        for number in numbers:
            do(number)
    pool = [threading.Thread(target=loop) for _ in range(threads - 1)]
    for thread in pool:
        thread.start()
    loop()
    for thread in pool:
        thread.join()

if what == "decrypt":
    decryptor = MessageDecryptor(content, [recipient], expected={}, size=len(content))
    layout = decryptor.layout
    def make():
        out = memoryview(bytearray(layout.frame_length))
        def do(number):
            start, end = layout.span(number)
            decryptor.open(number, content[start:end], out[:layout.content_length(number)])
        return do
elif what == "bare":
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    cipher = AESGCM(bytes(32))
    layout = Layout(0, 1 << 20, len(content) >> 20, 1 << 20)
    def make():
        out = memoryview(bytearray((1 << 20) + 16))
        def do(number):
            cipher.encrypt_into(number.to_bytes(12, "big"), content[number - 1 << 20 : number << 20], b"", out)
        return do
else:
    encryptor = MessageEncryptor([recipient], {})
    layout = Layout.of_content(encryptor.header, len(content))
    seal = encryptor.seal if what == "hash" else encryptor.encrypt
    def make():
        out = memoryview(bytearray(layout.frame_length + 40))
        def do(number):
            at = (number - 1) * layout.frame_length
            start, end = layout.span(number)
            seal(number, content[at : at + layout.content_length(number)], out[:end - start],
                 final=number == layout.frames)
        return do
cpu, wall = time.process_time(), time.perf_counter()
run(layout.frames, make)
print(json.dumps([layout.content, time.perf_counter() - wall, time.process_time() - cpu]))
"""
_WRITE = """
import sys
from sealflow.encryption import encrypt_message, load_recipient
with open(sys.argv[2], "rb") as source, open(sys.argv[3], "wb") as target:
    target.write(encrypt_message(source.read(), [load_recipient("aes:" + sys.argv[1])], {}))
"""
_TINK = """
import io, json, sys, time
import tink
from tink import streaming_aead
streaming_aead.register()
handle = tink.new_keyset_handle(streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB)
primitive = handle.primitive(streaming_aead.StreamingAead)
class Null(io.RawIOBase):
    def writable(self): return True
    def write(self, data): return len(data)
done = 0
with open(sys.argv[2], "rb", buffering=0) as source:
    cpu, wall = time.process_time(), time.perf_counter()
    with primitive.new_encrypting_stream(Null(), b"") as target:
        while data := source.read(1 << 20):
            target.write(data)
            done += len(data)
print(json.dumps([done, time.perf_counter() - wall, time.process_time() - cpu]))
"""
_SDK = """
import json, os, sys, time
import aws_encryption_sdk
from aws_cryptographic_material_providers.mpl import AwsCryptographicMaterialProviders, models
from aws_cryptographic_material_providers.mpl.config import MaterialProvidersConfig
keyring = AwsCryptographicMaterialProviders(config=MaterialProvidersConfig()).create_raw_aes_keyring(
    input=models.CreateRawAesKeyringInput(key_namespace="n", key_name="k", wrapping_key=open(sys.argv[1], "rb").read(),
        wrapping_alg=models.AesWrappingAlg.ALG_AES256_GCM_IV12_TAG16))
suite = aws_encryption_sdk.Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY
with open(sys.argv[2], "rb") as source:
    cpu, wall = time.process_time(), time.perf_counter()
    stream = aws_encryption_sdk.EncryptionSDKClient().stream(
        mode="e", source=source, keyring=keyring, frame_length=1 << 20, algorithm=suite)
    while stream.read(1 << 20):
        pass
    took = time.perf_counter() - wall, time.process_time() - cpu
print(json.dumps([os.path.getsize(sys.argv[2]), *took]))
"""


def measure(work: Path, rounds: int, quick: bool) -> list[Rate | Missing]:
    """Return the medians; every command in turn, after one warm-up round."""
    key, source, message = work / "key", work / "content", work / "message"
    key.write_bytes(os.urandom(32))
    block = os.urandom(1 << 20)
    with open(source, "wb") as file:
        for number in range(64 if quick else 1024):
            file.write(number.to_bytes(4, "big") + block[4:])
    subprocess.run([*python(_WRITE), key, source, message], check=True, env=environment())

    def ours(what: str, threads: int) -> list[str]:
        data = message if what == "decrypt" else source
        return [*python(_OURS), str(key), str(data), what, str(threads)]

    commands: dict[str, tuple[Sequence[str], float | None]] = {
        # What the library gives on this machine and at this hour, for scale.
        "bare cipher, 2 threads": (ours("bare", 2), None),
        "encrypt, 2 threads": (ours("encrypt", 2), BOUND),
        "encrypt, 1 thread": (ours("encrypt", 1), None),
        "encrypt and hash each frame, 2 threads": (ours("hash", 2), None),
        "decrypt, 2 threads": (ours("decrypt", 2), BOUND),
    }
    absent = []
    try:
        commands[_TINK_NAME] = ([peers.python(), "-c", _TINK, str(key), str(source)], None)
    except peers.PeerError as error:
        absent.append(Missing(_TINK_NAME, str(error)))
    if importlib.util.find_spec("aws_cryptographic_material_providers"):
        commands[_SDK_NAME] = ([*python(_SDK), str(key), str(source)], None)
    else:
        absent.append(Missing(_SDK_NAME, "it is not installed here"))
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for turn in range(rounds + 1):
        for name, (command, _) in commands.items():
            env = environment(_KEEP if name in (_TINK_NAME, _SDK_NAME) else None)
            answer = subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout
            count, wall, cpu = json.loads(answer.splitlines()[-1])
            if turn:
                samples[name].append((count / wall / 1e9, count / cpu / 1e9))
    shutil.rmtree(work)
    return [
        Rate(name, *(statistics.median(values) for values in zip(*samples[name], strict=True)), bound)
        for name, (_, bound) in commands.items()
    ] + absent
