"""A server asked in JSON: what fails on the way is tried again, what it refuses is an error of one line."""

import http.client
import json
import logging
import threading
import time
import urllib.error
import urllib.request
from typing import Any

from harness.errors import UserError, first_line

log = logging.getLogger(__name__)
LONGEST_WAIT_S = 60.0
AGAIN = (408, 425, 429)  # and all of 500 and above: the same request may get an answer later
SHOWN = 200  # characters of what a server says


class RequestsSpent(Exception):
    """The number of requests that the user allowed has been made."""


class Client:
    """One server. Threads may share it."""

    def __init__(
        self,
        url: str,
        *,
        retries: int = 5,
        wait_s: float = 1.0,
        timeout_s: float = 600.0,
        max_requests: int | None = None,
        key: str | None = None,
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self.retries, self.wait_s, self.timeout_s = retries, wait_s, timeout_s
        self.left = max_requests
        self.headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._counting = threading.Lock()

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The answer to a body. Raises UserError, and RequestsSpent before a request that is one too many."""
        return self._request(path, json.dumps(body).encode())

    def get(self, path: str) -> Any:
        """What lies at a path, as JSON. Raises UserError."""
        return self._request(path, None)

    def _request(self, path: str, body: bytes | None) -> Any:
        wait = self.wait_s
        for attempt in range(self.retries + 1):
            if body is not None:
                self._count()
            try:
                return self._once(path, body)
            except _Passing as error:
                if attempt == self.retries:
                    times = f"{attempt + 1} times" if attempt else "once"
                    raise UserError(f"{self.url}{path} was asked {times} and gave no answer: {error}.") from error
                pause = min(max(wait, error.retry_after), LONGEST_WAIT_S)
                log.warning("%s: %s; asked again in %.3g s", path, error, pause)
                time.sleep(pause)
                wait *= 2
        raise AssertionError("unreachable")

    def _count(self) -> None:
        with self._counting:
            if self.left is not None:
                if self.left == 0:
                    raise RequestsSpent
                self.left -= 1

    def _once(self, path: str, body: bytes | None) -> Any:
        request = urllib.request.Request(self.url + path, data=body, headers=self.headers)
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            said = _said(error)
            if error.code in AGAIN or error.code >= 500:
                raise _Passing(f"HTTP {error.code}{said}", _seconds(error.headers.get("Retry-After"))) from error
            raise UserError(f"{self.url}{path} refused the request: HTTP {error.code}{said}") from error
        except urllib.error.URLError as error:
            raise _Passing(str(error.reason)) from error
        except http.client.IncompleteRead as error:
            raise _Passing(f"the answer was cut off after {len(error.partial)} bytes") from error
        except (http.client.HTTPException, OSError) as error:
            raise _Passing(first_line(error)) from error
        except (ValueError, RecursionError) as error:  # brackets deeper than Python's stack
            raise _Passing("the answer is no JSON") from error


class _Passing(Exception):
    """A failure that may pass; `retry_after` in seconds, as the server asks."""

    def __init__(self, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


def _said(error: urllib.error.HTTPError) -> str:
    """What the server says of its refusal, in one line."""
    try:
        text = error.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return ""
    try:
        given = json.loads(text)
        given = given.get("error", given.get("message", given.get("detail", given)))
        text = str(given.get("message", given) if isinstance(given, dict) else given)
    except (ValueError, AttributeError, RecursionError):
        pass
    text = " ".join(text.split())[:SHOWN]
    return f", {text}" if text else ""


def _seconds(text: str | None) -> float:
    return float(text) if text is not None and text.isdigit() else 0.0
