"""Pass the files of committed rows to code that processes them further, such as a worker for thumbnails.

A receiver is called after the transaction has ended and all other work has been done, so that its errors cannot affect
the session. It only records the files, and must not wait for anything, because that would delay the session.
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
    """Records files whose rows have been committed."""

    @abstractmethod
    def accepts(self, file: TrackedFile) -> bool:
        """Return whether the receiver processes this file."""

    @abstractmethod
    def receive(self, files: Sequence[TrackedFile], certain: bool) -> None:
        """Record files, without waiting.

        Args:
            files: The files.
            certain: ``True`` if the session has reported the commit; ``False`` if its outcome is unknown.
        """


_receivers: Final[list[Receiver]] = []


def add_receiver(receiver: Receiver) -> None:
    """Register a receiver. If several accept a file, only the one that was registered last receives it."""
    _receivers.append(receiver)


def remove_receiver(receiver: Receiver) -> None:
    """Remove a receiver."""
    _receivers.remove(receiver)


def receivers() -> list[Receiver]:
    """Return the receivers."""
    return list(_receivers)


def hand_over(files: Sequence[TrackedFile], certain: bool) -> None:
    """Pass each file to one receiver. Never raises: errors are logged."""
    found: dict[Receiver, list[TrackedFile]] = {}
    for file in files if _receivers else ():
        receiver = next((one for one in reversed(_receivers) if one.accepts(file)), None)
        if receiver is not None:
            found.setdefault(receiver, []).append(file)
    for receiver, some in found.items():
        try:
            receiver.receive(some, certain)
        except Exception as error:  # the transaction is over, and nothing may make its commit fail
            extra = log_fields("thumbnails.refused", error, images=len(some))
            _log.warning(
                "%r did not accept %d images, whose thumbnails will be made on request: %r",
                receiver,
                len(some),
                error,
                extra=extra,
            )
