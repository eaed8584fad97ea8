"""The application: Litestar with the API's and the pages' route handlers."""

from collections.abc import Iterable

from litestar import Litestar
from litestar.handlers import HTTPRouteHandler

from kalends_gateway.http.wire import refused


def application(handlers: Iterable[HTTPRouteHandler]) -> Litestar:
    """Routes, and answers whatever is raised by a problem document.

    The OpenAPI document is made of the contract (see openapi): of these handlers, which pass bytes on, there is nothing
    to tell.
    """
    return Litestar(list(handlers), exception_handlers={Exception: refused}, openapi_config=None, logging_config=None)
