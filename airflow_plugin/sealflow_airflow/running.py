"""What long tasks have in common: lines of progress in the task's log, and an end when Airflow wants one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sealflow.actions.progress import ProgressLines


class Running:
    """Gives an operator the method by which Airflow stops it, and progress for its log.

    An ``execution_timeout`` raises in the middle of ``execute`` by itself. A signal, from whoever clears the task or
    from a pod that is evicted, only calls :meth:`on_kill`; without it the task would go on until it is killed.
    """

    log: Any
    _running = False

    @contextlib.contextmanager
    def _stoppable(self) -> Iterator[None]:
        self._running = True
        try:
            yield
        finally:
            self._running = False

    def on_kill(self) -> None:
        """End what runs. Airflow calls this in the thread that executes; after a timeout nothing runs any more.

        Raises:
            SystemExit: Something ran. No other exception passes all handlers on its way and lets Airflow try again.
        """
        if self._running:
            # Once: a second signal must not cut short what the first one made to be cleaned up.
            self._running = False
            raise SystemExit("Stopped by a signal. Nothing half done is visible; another try goes on where it can.")

    def _progress(self, what: str) -> ProgressLines:
        from sealflow.actions.progress import ProgressLines

        return ProgressLines(lambda line: self.log.info("%s", line), what)
