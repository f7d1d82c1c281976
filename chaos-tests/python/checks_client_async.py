"""The async client: the same scenarios as the sync one, each in an event loop of its own."""

from qdrant_client import AsyncQdrantClient

from checks_client import checks_with

CHECKS = checks_with(AsyncQdrantClient)
