"""One id per HTTP request, given when somebody first asks for it."""

from falcon.asgi import Request

from cortex_core.ids import RequestId, new_request_id


def request_id_of(request: Request) -> RequestId:
    """Return the id of this request; the same one however often it is asked for.

    A client's own id is not taken over: the id has to be unique over the fleet.
    """
    known: RequestId | None = request.context.get("request_id")
    if known is None:
        known = request.context["request_id"] = new_request_id()
    return known
