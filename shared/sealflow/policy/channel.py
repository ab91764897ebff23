"""Where an admin's file lies. Apart from what reads it, so that a process without one does not load that."""

from __future__ import annotations

from typing import Final

#: On the machine or in the container, mounted or baked in; only root may be able to write it.
MACHINE_FILE: Final = "/etc/sealflow/admin.json"
#: In the Python environment, below ``sys.prefix``: only those can write there who could as well replace this code.
ENVIRONMENT_FILE: Final = "etc/sealflow/admin.json"
