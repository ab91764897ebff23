"""What Airflow registers as a listener: a module, and nothing in it but the hook."""

from __future__ import annotations

import functools
import logging
from typing import Any

from airflow.listeners import hookimpl

from sealflow_airflow.notary import Notary, read_settings, seen

_log = logging.getLogger(__name__)


@functools.cache
def notary() -> Notary:
    """Return this process's notary."""
    return Notary(read_settings())


@hookimpl
def on_asset_event_emitted(asset_event: Any) -> None:
    """Hand an event to the notary."""
    try:
        notary().take(seen(asset_event))
    except Exception:
        # Airflow logs it too, without a word of whose it is.
        _log.exception("sealflow: the notary could not take an event.")
