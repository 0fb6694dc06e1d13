"""OpenAI's service tiers, which are priorities here: there is nothing to pay for."""

from typing import Final, NamedTuple

from cortex_core.canonical import Priority


class ServiceTier(NamedTuple):
    """How a request is served, and the word for it in answers."""

    name: str
    priority: Priority


_DEFAULT: Final = ServiceTier("default", 0)
_PRIORITY: Final = ServiceTier("priority", 1)
_TIERS: Final = {
    "auto": _DEFAULT,
    "default": _DEFAULT,
    "scale": _DEFAULT,
    "flex": ServiceTier("flex", -1),
    "priority": _PRIORITY,
    # Newer words; answers say `priority` for them, as OpenAI's do.
    "fast": _PRIORITY,
    "ultrafast": _PRIORITY,
}


def tier_from(word: str | None) -> ServiceTier:
    """Return the tier that a client asks for; with none, or one that is not known, the default."""
    return _DEFAULT if word is None else _TIERS.get(word, _DEFAULT)


def left_out_tier(word: str | None) -> tuple[str, ...]:
    """Return the field's JSON path where it names a tier that is not known."""
    return () if word is None or word in _TIERS else ("service_tier",)
