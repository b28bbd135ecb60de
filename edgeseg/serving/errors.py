"""HttpError: an error with the status that a client gets."""

from __future__ import annotations

from edgeseg.errors import EdgesegError

UNAUTHORIZED, FORBIDDEN, NOT_FOUND, NOT_ACCEPTABLE, REQUEST_TIMEOUT = 401, 403, 404, 406, 408
BAD_REQUEST, TOO_LARGE, UNSUPPORTED, UNPROCESSABLE, TOO_MANY = 400, 413, 415, 422, 429
CONFLICT, INTERNAL, UNAVAILABLE, DEADLINE = 409, 500, 503, 504


class HttpError(EdgesegError):
    """`retry_after`: after how many seconds to ask again, where that may help."""

    def __init__(self, status: int, what: str, hint: str = "", retry_after: int = 0):
        super().__init__(what, hint)
        self.status = status
        self.retry_after = retry_after

    @classmethod
    def of(cls, error: EdgesegError, status: int) -> HttpError:
        return error if isinstance(error, HttpError) else cls(status, error.what, error.hint)
