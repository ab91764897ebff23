"""The image of the components, chosen here and nowhere else."""

from __future__ import annotations

import os
from typing import Final

from sealflow import __version__

#: Names another image, such as one in a registry of your own, when a pipeline is compiled.
VARIABLE: Final = "SEALFLOW_KFP_IMAGE"


def default_image() -> str:
    """Return the image that components name: ``$SEALFLOW_KFP_IMAGE``, else ``sealflow:<version>``.

    The default has no registry: nobody but you can say where your images lie.
    """
    return os.environ.get(VARIABLE) or f"sealflow:{__version__}"
