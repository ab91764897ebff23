"""First thing that the guard directory's interpreter runs: finds its packages, below its own folder, and hands over."""

import sys

_ROOT = __file__[: -len("/lib/start.pyc")]
# Without `site` nothing else is on the path: the standard library, its extensions, and this.
sys.path.append(f"{_ROOT}/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages")

from sealflow_kfp.guard_directory import main  # noqa: E402

sys.exit(main(_ROOT))
