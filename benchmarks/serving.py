"""Measure the text embeddings of a model's server per CPU second, next to a plain loop over ONNX Runtime.

    python benchmarks/serving.py exports/emoji
    python benchmarks/serving.py exports/emoji --clients 8 --texts 16
    python benchmarks/serving.py exports/emoji --peer bert-onnx

Each round runs both, one after the other: the loop encodes all texts in batches in a process of its own, and clients
send the same texts to `tools/serve.py` as OpenAI's client does, in base64, over connections that stay open. Loading and
warm-up are not measured. CPU seconds are those of the loop's process, and of the server's without the clients'. The
last lines are the medians over the rounds of a server's texts per CPU second, divided by the loop's.

With `--peer`, infinity_emb serves a model from a folder in the layout of transformers that has a model.onnx, by its
fastest engine on CPUs (optimum, over ONNX Runtime). Give it a text tower of about the same size.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
# The peer must not download models or report its use.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
TIMEOUT = 300  # seconds for the start of a server, and for each answer
# The plain loop: reads texts as JSON, prints its seconds and CPU seconds. Ten batches are its warm-up.
LOOP_PROGRAM = """
import json, sys, time
from ernie_vil2.runtime_onnx import OnnxModel
model, texts, size = OnnxModel(sys.argv[1]), json.loads(sys.stdin.read()), int(sys.argv[2])
batches = [texts[start : start + size] for start in range(0, len(texts), size)]
for batch in batches[:10]:
    model.encode_texts(batch)
start, start_cpu = time.perf_counter(), time.process_time()
for batch in batches:
    model.encode_texts(batch)
print(time.perf_counter() - start, time.process_time() - start_cpu)
"""


class Server(NamedTuple):
    """A running server: its process id and its address."""

    pid: int
    address: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of an ONNX export")
    parser.add_argument("--clients", type=int, default=4, help="concurrent clients")
    parser.add_argument("--texts", type=int, default=64, help="texts per request, and per batch of the loop")
    parser.add_argument("--requests", type=int, default=200, help="requests per round, of all clients together")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", metavar="FOLDER", help="folder of a model that infinity_emb serves in the same run")
    parser.add_argument("--infinity", default="infinity_emb", metavar="PROGRAM", help="program of infinity_emb")
    args = parser.parse_args()

    texts = make_texts(args.texts * args.requests)
    print(f"{len(texts):,} texts, {args.texts} in a request, {args.clients} clients, {os.cpu_count()} cores")
    print(f"{'':<14}{'texts/s':>10}{'texts/CPU s':>14}")
    with ExitStack() as stack:
        servers = {"server": stack.enter_context(run_server(make_server_command(args.model)))}
        if args.peer and shutil.which(args.infinity):
            servers["infinity"] = stack.enter_context(run_server(make_infinity_command(args.infinity), Path(args.peer)))
        elif args.peer:
            print(f"without the peer: {args.infinity} is not installed")
        ratios = measure(servers, texts, args)
    for name, values in ratios.items():
        print(f"{name} / plain loop for a second of the processor: {statistics.median(values):.2f}")
    return 0


def measure(servers: Mapping[str, Server], texts: Sequence[str], args: argparse.Namespace) -> dict[str, list[float]]:
    """Measure the plain loop and all servers in turns, and print a row for each.

    Returns:
        For each server its texts per CPU second in every round, divided by those of the loop in the same round.
    """
    for server in servers.values():
        send_texts(server.address, texts, args)  # warm-up
    ratios: dict[str, list[float]] = {name: [] for name in servers}
    for _ in range(args.rounds):
        seconds, cpu_seconds = run_loop(args.model, texts, args.texts)
        loop_rate = print_row("plain loop", len(texts), seconds, cpu_seconds)
        for name, server in servers.items():
            start, start_cpu = time.perf_counter(), read_cpu_seconds(server.pid)
            send_texts(server.address, texts, args)
            seconds = time.perf_counter() - start
            cpu_seconds = read_cpu_seconds(server.pid) - start_cpu
            ratios[name].append(print_row(name, len(texts), seconds, cpu_seconds) / loop_rate)
    return ratios


def make_server_command(model: str) -> list[str]:
    # One process, the default: `read_cpu_seconds` reads that of the command alone.
    return [sys.executable, str(ROOT / "tools" / "serve.py"), f"model={os.path.abspath(model)}"]  # noqa: PTH100  -- a model may be more than a path


def make_infinity_command(program: str) -> list[str]:
    # Run from within the model's folder: version 0.0.78 with optimum 2 finds model.onnx only by its bare name.
    options = ["--model-id", ".", "--served-model-name", "model", "--engine", "optimum", "--device", "cpu"]
    options += ["--url-prefix", "/v1", "--host", "127.0.0.1", "--log-level", "error", "--no-model-warmup"]
    return [os.path.abspath(shutil.which(program) or program), "v2", *options]  # noqa: PTH100  -- resolve() would leave the environment


def make_texts(count: int) -> list[str]:
    """Return distinct sentences: captions of the demo in both languages, with a number."""
    from ernie_vil2.apps.search.add_items import list_images

    captions = []
    for image in list_images([str(ROOT / "demo_data" / "emoji-val.tar")]):
        fields = image.load().fields
        captions += [fields["caption_en"], fields["caption_zh"]]
    return [f"{captions[number % len(captions)]} {number}" for number in range(count)]


def print_row(name: str, num_texts: int, seconds: float, cpu_seconds: float) -> float:
    """Print a row, and return texts per CPU second."""
    print(f"{name:<14}{num_texts / seconds:>10.0f}{num_texts / cpu_seconds:>14.0f}", flush=True)
    return num_texts / cpu_seconds


def run_loop(model: str, texts: Sequence[str], batch_size: int) -> tuple[float, float]:
    """Run the plain loop in a process of its own; return its seconds and CPU seconds."""
    command = [sys.executable, "-c", LOOP_PROGRAM, model, str(batch_size)]
    output = subprocess.run(  # noqa: S603  -- a command of this script
        command, env=ENVIRONMENT, input=json.dumps(texts), capture_output=True, text=True, check=True
    ).stdout
    seconds, cpu_seconds = map(float, output.split())
    return seconds, cpu_seconds


@contextmanager
def run_server(command: Sequence[str], folder: Path = ROOT) -> Iterator[Server]:
    """Start a server in a folder, on a free port, and stop it after the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(  # noqa: S603  -- a command of this script
        [*command, "--port", str(port)], cwd=folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL
    )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for_server(process, address)
        yield Server(process.pid, address)
    finally:
        process.terminate()
        process.wait(60)


def wait_for_server(process: subprocess.Popen, address: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            urllib.request.urlopen(f"{address}/v1/models", timeout=60).close()  # noqa: S310  -- our own server
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("error: the server did not start") from None
            time.sleep(0.05)


def send_texts(address: str, texts: Sequence[str], args: argparse.Namespace) -> None:
    """Send all texts, and wait for their embeddings; clients take turns at the requests."""
    starts = range(0, len(texts), args.texts)
    headers = {"Content-Type": "application/json"}

    def run_client(number: int) -> None:
        with closing(HTTPConnection(address.removeprefix("http://"), timeout=TIMEOUT)) as connection:
            for start in starts[number :: args.clients]:
                body = {"model": "model", "input": texts[start : start + args.texts], "encoding_format": "base64"}
                connection.request("POST", "/v1/embeddings", json.dumps(body), headers)
                response = connection.getresponse()
                content = response.read()
                if response.status != 200:
                    raise SystemExit(f"error: the server answers {response.status}: {content.decode()}")

    with ThreadPoolExecutor(args.clients) as clients:
        list(clients.map(run_client, range(args.clients)))  # a list, to raise the errors of the clients


def read_cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process so far."""
    # The second field, the program's name in brackets, may have spaces.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])  # in user and in system mode
    return ticks / TICKS_PER_SECOND


if __name__ == "__main__":
    sys.exit(main())
