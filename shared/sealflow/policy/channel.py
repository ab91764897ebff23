"""Where an admin's file lies. Apart from what reads it, so that a process without one does not load that."""

from __future__ import annotations

import os
from typing import Final

#: On the machine or in the container, mounted or baked in; only root may be able to write it.
MACHINE_FILE: Final = "/etc/sealflow/admin.json"
#: In the Python environment, below ``sys.prefix``: only those can write there who could as well replace this code.
ENVIRONMENT_FILE: Final = "etc/sealflow/admin.json"


def is_there(path: str) -> bool:
    """Tell whether something lies at a path, or may: what cannot be looked at is not taken for nothing."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True
