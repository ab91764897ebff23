"""Runs the stock ``model_signing`` in its own interpreter: one JSON command a line in, one JSON answer a line out.

Each command runs in a forked child, so it sees a freshly started program without paying for its slow import. Works
with every release since 0.2.0, whose programming interfaces differ.
"""

import io
import json
import os
import pathlib
import sys
import traceback

import model_signing

try:
    from model_signing import hashing, signing
    from model_signing.signing import Config
except ImportError:  # 0.2.0
    hashing = signing = Config = None
try:
    from model_signing import _cli
except ImportError:  # before 1.0
    _cli = None


def run_command(argv):
    """What ``model_signing <argv>`` does; returns its exit status."""
    try:
        _cli.main(args=argv, prog_name="model_signing")
    except SystemExit as end:
        return end.code or 0
    return 0


def sign(order):
    """Sign as the release's library does."""
    if Config is None:
        return sign_0_2(order)
    hasher = hashing.Config()
    if order.get("shard_size"):
        hasher.use_shard_serialization(hashing_algorithm=order["hash"], shard_size=order["shard_size"])
    elif order.get("hash", "sha256") != "sha256":
        hasher.use_file_serialization(hashing_algorithm=order["hash"])
    if order.get("ignore"):
        model = pathlib.Path(order["model"])
        hasher.set_ignored_paths(paths=[model / path for path in order["ignore"]], ignore_git_paths=True)
    # Not Config(): up to 1.0 its constructor goes to the network for Sigstore's trust root.
    config = Config.__new__(Config)
    config._hashing_config = hasher
    if order.get("certificate"):
        config.use_certificate_signer(
            private_key=order["key"], signing_certificate=order["certificate"], certificate_chain=order["chain"]
        )
    else:
        config.use_elliptic_key_signer(private_key=order["key"])
    config.sign(order["model"], order["signature"])
    return 0


def sign_0_2(order):
    """What the 0.2.0 command did."""
    from model_signing import model
    from model_signing.hashing import file, memory
    from model_signing.serialization import serialize_by_file
    from model_signing.signature import key, pki
    from model_signing.signing import in_toto, in_toto_signature

    if order.get("certificate"):
        signer = pki.PKISigner.from_path(order["key"], order["certificate"], order["chain"])
    else:
        signer = key.ECKeySigner.from_path(order["key"])
    serializer = serialize_by_file.ManifestSerializer(lambda path: file.SimpleFileHasher(path, memory.SHA256()))
    signature = model.sign(
        pathlib.Path(order["model"]),
        in_toto_signature.IntotoSigner(signer),
        in_toto.DigestsIntotoPayload.from_manifest,
        serializer,
    )
    signature.write(pathlib.Path(order["signature"]))
    return 0


def verify_with(order):
    """Verify several models with one reused configuration, as its documentation invites to."""
    config = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=order["public_key"])
    for target, signature in order["pairs"]:
        config.verify(target, signature)
    return 0


ORDERS = {"run": run_command, "sign": sign, "verify_with": verify_with}


def answer(order, argument):
    """Run one order in a child; returns its exit status and all that it printed."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        status = 70
        try:
            os.dup2(write, 1)
            os.dup2(write, 2)
            # Unbuffered, because the child ends without a farewell.
            sys.stdout, sys.stderr = (
                io.TextIOWrapper(open(fd, "wb", buffering=0, closefd=False), write_through=True)  # noqa: SIM115
                for fd in (1, 2)
            )
            status = ORDERS[order](argument)
        except BaseException:
            traceback.print_exc()
        os._exit(status)
    os.close(write)
    with open(read, "rb") as pipe:
        output = pipe.read()
    return {"status": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), "output": output.decode(errors="replace")}


if __name__ == "__main__":
    print(json.dumps({"version": getattr(model_signing, "__version__", "?")}), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(*json.loads(line))), flush=True)
