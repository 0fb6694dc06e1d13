"""Images, audio and files in requests: base64 and URLs to `MediaPart`."""

import base64
import binascii
from typing import Literal

from cortex_core.canonical import MediaPart
from cortex_core.dialects.reading import refuse

Kind = Literal["image", "audio", "file"]


def media_from_base64(kind: Kind, media_type: str | None, text: str, *, place: str) -> MediaPart:
    """Return the media in `text`.

    Raises:
        InvalidRequest: naming `place`, where `text` is empty or not base64.
    """
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise refuse(place, "not valid base64") from None
    if not data:
        raise refuse(place, "the data is empty")
    return MediaPart(kind=kind, media_type=media_type, data=data, place=place)


def media_from_url(kind: Kind, url: str, *, place: str) -> MediaPart:
    """Return the media behind an http(s) URL, unfetched, or inside a data URL.

    Raises:
        InvalidRequest: naming `place`, for any other scheme or a data URL that is not base64.
    """
    scheme, _, rest = url.partition(":")
    if scheme.lower() in ("http", "https") and rest.startswith("//"):
        return MediaPart(kind=kind, url=url, place=place)
    if scheme.lower() != "data":
        raise refuse(place, "expected an http, https or data URL")
    head, comma, payload = rest.partition(",")
    media_type, *attributes = head.split(";")
    if not comma or "base64" not in attributes:
        raise refuse(place, "expected a data URL with base64 data")
    return media_from_base64(kind, media_type or None, payload, place=place)
