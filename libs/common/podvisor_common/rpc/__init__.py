"""gRPC on unix sockets. Light enough for a launcher."""
