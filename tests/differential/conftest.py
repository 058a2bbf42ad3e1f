from tests.integration.conftest import redis_server

__all__ = ["redis_server"]
