"""Bodies of requests: where they are parsed."""

import asyncio
import threading

from ernie_vil2.apps.serving.bodies import MAX_IMMEDIATE_SIZE, RequestReader


def test_large_bodies_are_parsed_on_a_thread():
    async def find_threads():
        reader = RequestReader()
        small = await reader.prepare(MAX_IMMEDIATE_SIZE, threading.get_ident)
        large = await reader.prepare(MAX_IMMEDIATE_SIZE + 1, threading.get_ident)
        return small, large

    small, large = asyncio.run(find_threads())
    assert small == threading.get_ident() != large
