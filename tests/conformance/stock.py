"""The stock ``model_signing`` as an oracle: a subprocess that signs and verifies."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DRIVER = Path(__file__).with_name("stock_driver.py")


@dataclass(frozen=True)
class Answer:
    """What the stock tool said."""

    status: int
    output: str

    @property
    def accepted(self) -> bool:
        return self.status == 0 and "Verification succeeded" in self.output


class Stock:
    """One running interpreter with the stock tool."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.version = self._read()["version"]

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the stock tool died with status {self._process.wait()}"
        return json.loads(line)

    def _ask(self, order: str, argument: Any) -> Answer:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([order, argument]) + "\n")
        self._process.stdin.flush()
        return Answer(**self._read())

    def run(self, *arguments: str | Path) -> Answer:
        """Run its command line."""
        return self._ask("run", [str(argument) for argument in arguments])

    def verify_key(self, model: Path, signature: Path, public_key: Path, *more: str) -> Answer:
        return self.run("verify", "key", "--signature", signature, "--public_key", public_key, *more, model)

    def verify_certificate(self, model: Path, signature: Path, root: Path, *more: str) -> Answer:
        return self.run("verify", "certificate", "--signature", signature, "--certificate_chain", root, *more, model)

    def verify_with(self, public_key: Path, pairs: Sequence[tuple[Path, Path]]) -> Answer:
        """Verify several models through the library, with one configuration."""
        texts = [[str(model), str(signature)] for model, signature in pairs]
        return self._ask("verify_with", {"public_key": str(public_key), "pairs": texts})

    def sign(self, model: Path, signature: Path, key: Path, **options: Any) -> bytes:
        """Sign through its library and return the bundle; see ``sign`` in the driver for the options."""
        order = {"model": str(model), "signature": str(signature), "key": str(key), "hash": "sha256", **options}
        answer = self._ask("sign", order)
        assert answer.status == 0, answer.output
        return signature.read_bytes()


@contextmanager
def running(python: str | Path = sys.executable) -> Iterator[Stock]:
    """Start the stock tool that is installed for ``python``."""
    process = subprocess.Popen(
        [str(python), "-I", str(DRIVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    try:
        yield Stock(process)
    finally:
        try:
            # Closes its standard input, at which it ends.
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
