"""A datasheet: what the owner of a dataset states about it. The questions are of Gebru et al. 2021."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

LABELS = {"sensitive": "sensitive content"}  # where a key says too little
NOT_STATED = "not stated"


@dataclass(frozen=True)
class Datasheet:
    """`source`: where the frames and labels come from. `license`: under which they may be used. `consent`: of the
    people that are seen. `sensitive`: faces, number plates, private places, and what was done about them.
    `classification`: who may see it, in the words of its owner: public, internal, confidential."""

    source: str = ""
    license: str = ""
    consent: str = ""
    sensitive: str = ""
    classification: str = ""

    def lines(self) -> list[str]:
        """One line for each statement, and for each that is missing."""
        keys = [field.name for field in dataclasses.fields(self)]
        return [f"{LABELS.get(key, key)}: {' '.join(getattr(self, key).split()) or NOT_STATED}" for key in keys]
