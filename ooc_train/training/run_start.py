"""Which parameters a run began from, so that its settings file can name them."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ooc_train.errors import InvalidRun
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.run_loading import as_fitted


@dataclass(frozen=True)
class RunStart:
    """The parameters that a run began from.

    Attributes
    ----------
    path : str
        Folder of the run that had them; "" if they were given in Python.
    digest : str
        A digest of the parameters.
    """

    path: str
    digest: str

    @classmethod
    def of(cls, given: Any, fitted: Fitted) -> Self:
        """Return the start, as `train` was given it and as it was loaded."""
        path = os.path.abspath(given) if isinstance(given, str | os.PathLike) else ""
        return cls(os.fspath(path), _digest(fitted))

    @classmethod
    def from_json(cls, values: Mapping[str, str] | None) -> Self | None:
        """Return the start as `to_json` gave it; None is a run that began from no other."""
        return None if values is None else cls(**values)

    def to_json(self) -> dict[str, str]:
        """Return the start as values of JSON."""
        return {"path": self.path, "digest": self.digest}


def require_start(path: str, digest: str) -> None:
    """Require that a run still has the parameters that an earlier run began from.

    Raises
    ------
    InvalidRun
        If it has others, or is no run.
    """
    found = _digest(as_fitted(path))
    if found != digest:
        raise InvalidRun(
            f"{path} has other parameters now (digest {found}) than those that the run of the "
            f"settings file began from ({digest}); restore it, or remove start-digest from the "
            "file to begin from what it has now"
        )


def _digest(fitted: Fitted) -> str:
    """Return a digest of the values, shapes and types of the parameters, and of the classes."""
    digest = hashlib.sha256(repr(fitted.classes).encode())
    for name, array in fitted.predictor.arrays.items():
        digest.update(f"{name} {array.shape} {array.dtype.str}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]
