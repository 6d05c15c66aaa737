"""ServiceError: what the service refuses and why, in the form in which clients of OpenAI's API expect errors."""

from __future__ import annotations

from typing import Any

TYPE_OF_STATUS = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class ServiceError(Exception):
    """A request that gets an error as its answer.

    Args:
        status: The HTTP status.
        code: What happened, for programs, e.g. `"too_many_texts"`.
        message: What happened and what to do, for people; never the content of a request.
        param: The field of the request that it is about.
        retry_after: After how many seconds the same request may be answered.
    """

    def __init__(self, status: int, code: str, message: str, param: str | None = None, retry_after: int | None = None):
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.closes = False  # set where the body, or the rest of it, will not be read

    @property
    def body(self) -> dict[str, Any]:
        """Return the answer as a dict for JSON."""
        kind = TYPE_OF_STATUS.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers that belong to the answer."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.closes:
            headers["Connection"] = "close"
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers
