"""torch's errors about memory and batch norm, translated into errors that say what to change."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from edgeseg.errors import EdgesegError, OptionError
from edgeseg.recipe import Settings

OUT_OF_MEMORY = re.compile("out of memory|allocate memory|not enough memory", re.IGNORECASE)


@contextmanager
def translated_errors(settings: Settings, position: str) -> Iterator[None]:
    """Raise EdgesegError for torch's errors about memory and batch norm. `position` ends the message's sentence."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not OUT_OF_MEMORY.search(str(error)):
            raise
        raise EdgesegError(
            f"Out of memory with batches of {settings.batch} frames in {settings.accumulate} part(s); {position}.",
            "Raise accumulate (the batch in smaller parts), or lower batch, crop or data.size, or use precision bf16.",
        ) from error
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise OptionError(
            "A batch of one frame is too small for this net's batch norms.",
            "Raise batch, or lower accumulate or the number of processes: each part needs two frames.",
        ) from error
