"""TOML files with errors a person can act on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from edgeseg.errors import FileError
from edgeseg.files import require_file

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_BYTES = 1 << 20


def read(path: Path, what: str) -> dict[str, Any]:
    """The table in `path`; FileError for a file that is missing, empty, too large or not TOML. `what` names it."""
    if require_file(path, what).stat().st_size > MAX_BYTES:
        raise FileError(f"{what} {path} is larger than {MAX_BYTES} bytes.", "Expected a page of TOML.")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FileError(f"{what} {path} is not valid TOML: {error}.", "Mend that line.") from None
    except OSError as error:
        raise FileError(f"{what} {path} cannot be read: {error.strerror}.", "Check its permissions.") from None
