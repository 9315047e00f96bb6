"""Small asyncio building blocks without third-party needs: backoff, owned tasks, the life of a service."""
