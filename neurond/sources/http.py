"""HTTP for downloads, on the standard library.

`urllib` is enough here: fetches are few, sequential and run in a process of their own. It honours
the proxy variables, its timeout is per read, which is what a long download needs, and it brings no
dependency into the node.
"""

import base64
import os
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException, HTTPResponse
from typing import Final
from urllib.response import addinfourl

from cortex_core import __version__
from cortex_core.errors import ModelLoadFailed, ModelNotFound

IDLE_TIMEOUT_S: Final = 30.0
"""Longest silence of a server; there is no limit on a whole download."""
CA_VARIABLES: Final = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
NETWORK_ERRORS: Final = (OSError, HTTPException)
"""What an interrupted transfer raises; `urllib.error.URLError` is an `OSError`."""

Response = HTTPResponse | addinfourl


def open_url(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    token: str | None = None,
    idle_timeout_s: float = IDLE_TIMEOUT_S,
) -> Response:
    """Open `url` for reading. `user:password@` in it becomes basic authentication.

    Args:
        url: http, https or file.
        headers: further request headers.
        token: bearer token, sent to this host only and to none that it redirects to.
        idle_timeout_s: longest wait for a connection and for each read.

    Raises:
        urllib.error.HTTPError: the server answered with an error status.
        OSError: the server cannot be reached.
    """
    plain_url, basic = _split_credentials(url)
    request = urllib.request.Request(plain_url)  # noqa: S310 - schemes are checked just below
    if request.type not in {"http", "https", "file"}:
        raise ModelLoadFailed(f"cannot open {plain_url}: expected an http, https or file address")
    request.add_header("User-Agent", f"neurond/{__version__}")
    for name, value in (headers or {}).items():
        request.add_header(name, value)
    if token or basic:
        credentials = f"Bearer {token}" if token else f"Basic {basic}"
        request.add_unredirected_header("Authorization", credentials)
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=tls_context()))
    response: Response = opener.open(request, timeout=idle_timeout_s)
    return response


def read_document(
    url: str,
    *,
    what: str,
    headers: Mapping[str, str] | None = None,
    token: str | None = None,
    idle_timeout_s: float = IDLE_TIMEOUT_S,
) -> tuple[bytes, str]:
    """Return body and content type of a small document.

    Args:
        url: where it is.
        what: what is looked for, as the error message shall name it.
        headers: further request headers.
        token: bearer token.
        idle_timeout_s: longest wait for a connection and for each read.

    Raises:
        ModelNotFound: 404 or 410, or no such file.
        ModelLoadFailed: anything else that went wrong.
    """
    shown = without_credentials(url)
    try:
        with open_url(url, headers=headers, token=token, idle_timeout_s=idle_timeout_s) as response:
            return response.read(), response.headers.get("content-type", "")
    except urllib.error.HTTPError as ex:
        ex.close()
        if ex.code in {404, 410}:
            raise ModelNotFound(f"cannot find {what}: {shown} answers {ex.code}") from ex
        raise ModelLoadFailed(f"cannot fetch {what}: {shown} answers {ex.code} {ex.reason}") from ex
    except NETWORK_ERRORS as ex:
        if isinstance(getattr(ex, "reason", None), FileNotFoundError):
            raise ModelNotFound(f"cannot find {what}: {shown} does not exist") from ex
        raise ModelLoadFailed(f"cannot fetch {what}: {shown}: {ex}") from ex


def tls_context() -> ssl.SSLContext:
    """Return a verifying context; a bundle named for pip or requests counts as OpenSSL's does."""
    bundle = next((path for name in CA_VARIABLES if (path := os.environ.get(name))), None)
    return ssl.create_default_context(cafile=bundle)


def without_credentials(url: str) -> str:
    """Return `url` as it may be shown in a message or log."""
    return _split_credentials(url)[0]


def _split_credentials(url: str) -> tuple[str, str | None]:
    parts = urllib.parse.urlsplit(url)
    if "@" not in parts.netloc:
        return url, None
    credentials, _, host = parts.netloc.rpartition("@")
    encoded = base64.b64encode(urllib.parse.unquote(credentials).encode()).decode()
    return urllib.parse.urlunsplit(parts._replace(netloc=host)), encoded
