"""The gRPC server."""

from service.server.server import Server, create, serve

__all__ = ["Server", "create", "serve"]
