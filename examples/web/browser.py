"""Stands for the browser: sends requests to the web server."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any


def ask(url: str, tenant: str, body: Any = None) -> tuple[int, Any]:
    """Send a GET, or a POST of `body` as JSON; return the answer's status and JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        url, data, headers={"X-Tenant": tenant, "Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
