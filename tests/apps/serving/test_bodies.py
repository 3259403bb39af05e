"""Bodies of requests: where they are parsed."""

import argparse
import asyncio
import errno
import json
import threading

import numpy as np
import pytest

from ernie_vil2.apps.serving.bodies import MAX_IMMEDIATE_SIZE, RequestReader, encode_json
from ernie_vil2.apps.serving.middleware import Uploads
from ernie_vil2.apps.serving.options import add_server_options


def test_large_bodies_are_parsed_on_a_thread():
    async def find_threads():
        reader = RequestReader()
        small = await reader.convert_json(MAX_IMMEDIATE_SIZE, threading.get_ident)
        large = await reader.convert_json(MAX_IMMEDIATE_SIZE + 1, threading.get_ident)
        return small, large

    small, large = asyncio.run(find_threads())
    assert small == threading.get_ident() != large


@pytest.mark.parametrize("number", [1, 2**70])
def test_arrays_are_encoded_next_to_numbers_of_any_size(number):
    value = {"rows": np.arange(4, dtype=np.float32).reshape(2, 2), "score": np.float32(0.5), "number": number}
    assert json.loads(encode_json(value)) == {"rows": [[0, 1], [2, 3]], "score": 0.5, "number": number}


def test_upload_without_memory_is_not_counted(monkeypatch):
    async def receive():
        async with uploads.receive(None):
            pass

    def refuse_memory(*_, **__):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    uploads = Uploads()
    monkeypatch.setattr("mmap.mmap", refuse_memory)
    with pytest.raises(OSError, match="Cannot allocate memory"):
        asyncio.run(receive())
    assert (uploads.num_uploads, uploads.num_bytes) == (0, 0)


@pytest.mark.parametrize("option", ["--allowed-host", "--trusted-proxy"])
def test_repeated_options_of_the_server_add_up(option):
    parser = argparse.ArgumentParser()
    add_server_options(parser, 1)
    args = parser.parse_args([option, "10.0.0.1", option, "10.0.0.2"])
    values = getattr(args, option.removeprefix("--").replace("-", "_"))
    assert [str(value).partition("/")[0] for value in values] == ["10.0.0.1", "10.0.0.2"]
