"""Make a virtual environment and install this project into it, pinned by constraints.txt.

Usage: python3 scripts/bootstrap.py <environment> <extra>

Standard library only: this is the first thing that runs on a fresh machine.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# What pip calls a setting, and the variable in which uv reads the same.
UV_VARIABLE = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
}
# Where pip reads its settings for an installation; later ones win.
PIP_SECTIONS = ("global", "install", ":env:")


def uv_environment(python: Path) -> dict[str, str]:
    """This process's environment plus pip's settings, which uv does not read by itself."""
    listing = subprocess.run([python, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True).stdout
    said: dict[str, dict[str, str]] = {section: {} for section in PIP_SECTIONS}
    for line in listing.splitlines():  # e.g. global.index-url='…'
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if section in said and key in UV_VARIABLE:
            # Lists come one a line; uv separates find-links with commas and the rest with spaces.
            separator = "," if key == "find-links" else " "
            said[section][UV_VARIABLE[key]] = separator.join(ast.literal_eval(value).split())
    settings = {name: value for section in PIP_SECTIONS for name, value in said[section].items()}
    # pip takes the best version of all indexes; so shall uv, or the pins may not be found.
    return {"UV_INDEX_STRATEGY": "unsafe-best-match", **settings, **os.environ}


def main() -> int:
    """Create the environment unless it is there, then install with uv, or with pip if uv cannot."""
    environment, extra = Path(sys.argv[1]).absolute(), sys.argv[2]
    python = environment / "bin" / "python"
    if not python.exists():
        try:
            subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        except subprocess.CalledProcessError:
            # Debian splits ensurepip into python3-venv; a system pip can stand in for it.
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
            pip = [sys.executable, "-m", "pip", "--python", python]
            subprocess.run([*pip, "install", "--quiet", "pip"], check=True)

    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pins = ["--constraint", ROOT / "constraints.txt"]
    request = [*pins, "--editable", f"{ROOT}[{extra}]"]
    # uv takes a minute where pip takes many; it is an ordinary package, so nothing is assumed.
    if subprocess.run([*pip, *pins, "uv"]).returncode == 0:
        print(f"Installing sealflow[{extra}]; the first time takes a minute or two", flush=True)
        # Compiled once here: Airflow takes three times as long to import from source, in each of its many processes.
        uv = [environment / "bin" / "uv", "pip", "install", "--quiet", "--compile-bytecode", "--python", python]
        if subprocess.run([*uv, *request], env=uv_environment(python)).returncode == 0:
            return 0
        print("uv could not install; trying again with pip", file=sys.stderr)
    return subprocess.run([*pip, *request]).returncode


if __name__ == "__main__":
    sys.exit(main())
