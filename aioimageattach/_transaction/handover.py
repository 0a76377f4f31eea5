"""Hand over the files of committed rows to code that processes them further, such as a worker for thumbnails.

A receiver only takes note of the files. It must not do so before the transaction has ended, and neither an error nor a
delay of it may reach the session, so it is called after everything else, and must not wait for anything.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

from .._telemetry import log_fields
from .references import TrackedFile

__all__ = ["Receiver", "add_receiver", "hand_over", "receivers", "remove_receiver"]

_log = logging.getLogger("aioimageattach.transaction")


class Receiver(ABC):
    """Takes note of files whose rows were committed."""

    @abstractmethod
    def accepts(self, file: TrackedFile) -> bool:
        """Return whether the receiver processes files such as this one."""

    @abstractmethod
    def receive(self, files: Sequence[TrackedFile], certain: bool) -> None:
        """Take note of files, without waiting.

        Args:
            files: The files.
            certain: Whether the session has reported the commit; otherwise its outcome is unknown.
        """


_receivers: Final[list[Receiver]] = []


def add_receiver(receiver: Receiver) -> None:
    """Register a receiver. A file goes to the receiver that was registered last among those that accept it."""
    _receivers.append(receiver)


def remove_receiver(receiver: Receiver) -> None:
    """Remove a receiver."""
    _receivers.remove(receiver)


def receivers() -> list[Receiver]:
    """Return the receivers."""
    return list(_receivers)


def hand_over(files: Sequence[TrackedFile], certain: bool) -> None:
    """Hand over files, each to one receiver. Never raises: what cannot be handed over is logged."""
    found: dict[Receiver, list[TrackedFile]] = {}
    for file in files if _receivers else ():
        receiver = next((one for one in reversed(_receivers) if one.accepts(file)), None)
        if receiver is not None:
            found.setdefault(receiver, []).append(file)
    for receiver, some in found.items():
        try:
            receiver.receive(some, certain)
        except Exception as error:  # the transaction is over, and nothing may make its commit fail
            extra = log_fields("thumbnails.refused", error, pictures=len(some))
            _log.warning("%r could not take %d pictures: %r", receiver, len(some), error, extra=extra)
