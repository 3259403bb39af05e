"""Measure a search server under load, next to a plain one of FastAPI and faiss with the same index, in the same run.

    python benchmarks/search_server.py --index indexes/emoji
    python benchmarks/search_server.py --index indexes/icons --seconds 20
    python benchmarks/search_server.py --index indexes/emoji --workers 2 --skip-plain

`wrk` (Debian's package) sends requests over loopback: one client, then 100 clients, with 6,000 distinct queries and the
cache off; 100 clients with JPEG files of 500 x 375; and 100 clients with 40 queries that repeat and the cache on. Each
row has answers per second, latencies (median and 99th percentile), errors, and CPU milliseconds of all processes of the
server for an answer. Only the CPU time is comparable on a machine that others use as well. Then follow 1,000 idle
connections, 1,900 clients at once, the start of the server, and one query of the command.
"""

import argparse
import io
import itertools
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
PLAIN_COMMAND = [sys.executable, "-W", "ignore", str(ROOT / "benchmarks" / "plain_search.py")]
SEARCH_COMMAND = [sys.executable, "-W", "ignore", str(ROOT / "tools" / "search.py")]
NUM_QUERIES = 6000  # more than are answered in a row's seconds, so that few repeat
NUM_REPEATED = 40  # queries that the cache answers
NUM_FILES = 50  # JPEG files
NUM_IDLE = 1000  # connections that send nothing
CROWD_SIZE = 1900  # clients at once: more than wait in the server's queue, so that some are refused
START_TIMEOUT = 300  # seconds
MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}  # of a unit of wrk
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
QUERY_SCRIPT = """
local queries, number = {}, 0
for line in io.lines("%s") do queries[#queries + 1] = line end
request = function()
  number = number %% #queries + 1
  return wrk.format("GET", "/v1/search?q=" .. queries[number])
end
"""
UPLOAD_SCRIPT = """
local files, number = {}, 0
for name = 1, %d do
  local file = io.open("%s/" .. name .. ".jpg", "rb")
  files[name] = file:read("*a")
  file:close()
end
request = function()
  number = number %% #files + 1
  return wrk.format("POST", "/v1/search/image", nil, files[number])
end
"""


class LoadResult(NamedTuple):
    """Figures of a load on a server.

    Attributes:
        num_answers: answers, refusals included.
        num_refused: answers with an HTTP error.
        num_broken: socket errors and timeouts.
        rate: answers per second.
        median: latency in milliseconds.
        p99: 99th percentile of the latency in milliseconds.
        cpu: CPU milliseconds of the server for an answer.
    """

    num_answers: int
    num_refused: int
    num_broken: int
    rate: float
    median: float
    p99: float
    cpu: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", required=True)
    parser.add_argument("--clients", type=int, default=100, help="clients at the same time")
    parser.add_argument("--seconds", type=int, default=10, help="seconds of load for each row")
    parser.add_argument("--workers", type=int, default=1, help="processes of the server; the plain one has one")
    parser.add_argument("--skip-plain", action="store_true", help="leave the plain server out")
    args = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("error: wrk sends the requests: apt-get install wrk")
    # Each connection needs an open file, here and in the servers, which inherit the limit.
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(10_000, hard_limit), hard_limit))

    with tempfile.TemporaryDirectory() as folder:
        scripts = write_scripts(args.index, Path(folder))
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the run; {args.index}")
        print(f"{'':<34}{'answers/s':>10}{'p50 ms':>9}{'p99 ms':>9}{'errors':>8}{'CPU ms':>9}", flush=True)
        if not args.skip_plain:
            with run_server([*PLAIN_COMMAND, "--index", args.index]) as server:
                measure_rows("plain", server, scripts, args)
        command = [*SEARCH_COMMAND, "serve", "--trusted-proxy", "127.0.0.1", "--index", args.index]
        command += ["--workers", str(args.workers)]
        with run_server([*command, "--cache", "0"]) as server:
            measure_rows("ours", server, scripts, args)
            measure_overload(server, scripts)
        with run_server(command) as server:
            start_seconds, start_cpu = server.start_seconds, server.start_cpu
            send_requests(server, scripts["repeated"], 4, 2)  # warm-up, which also fills the cache
            measure_row("ours, 40 queries, cache", server, scripts["repeated"], args.clients, args.seconds)
    print(f"\nfirst answer after {start_seconds:.1f} s and {start_cpu:.2f} s of the processor")
    print(f"one query of the command takes {measure_query(args.index):.2f} s of the processor")
    return 0


def write_scripts(index: str, folder: Path) -> dict[str, Path]:
    """Write the scripts of wrk, with the queries and files that they send, into a folder; return them by name."""
    from urllib.parse import quote_plus

    from PIL import Image

    from ernie_vil2.apps.search import open_index

    with open_index(index) as opened_index:
        captions = opened_index.collection("images").sample_captions(2000)
    if not captions:
        raise SystemExit(f"error: {index} has no captions to ask for")
    # Captions, then the same with a number, until there are enough.
    queries = list(captions)
    for number in itertools.count():
        if len(queries) >= NUM_QUERIES:
            break
        queries += [f"{caption} {number}" for caption in captions]
    del queries[NUM_QUERIES:]

    rng = np.random.default_rng(0)
    for number in range(1, NUM_FILES + 1):
        # Soft colours, so that the files have the size of photographs.
        coarse_image = Image.fromarray(rng.integers(0, 256, [24, 32, 3], np.uint8))
        content = io.BytesIO()
        coarse_image.resize((500, 375)).save(content, "jpeg", quality=90)
        (folder / f"{number}.jpg").write_bytes(content.getvalue())

    scripts = {}
    for name, lines in (("distinct", queries), ("repeated", queries[:NUM_REPEATED])):
        query_file = folder / f"{name}.txt"
        query_file.write_text("\n".join(map(quote_plus, lines)))
        scripts[name] = folder / f"{name}.lua"
        scripts[name].write_text(QUERY_SCRIPT % query_file)
    scripts["upload"] = folder / "upload.lua"
    scripts["upload"].write_text(UPLOAD_SCRIPT % (NUM_FILES, folder))
    return scripts


class Server:
    """A server in processes of its own, which has answered its first query.

    Attributes:
        process: the process that was started.
        address: its address.
        start_seconds: seconds from the start to the first answer.
        start_cpu: CPU seconds until then.
    """

    def __init__(self, process: subprocess.Popen, port: int, start_time: float):
        self.process, self.address = process, f"http://127.0.0.1:{port}"
        while True:
            try:
                urllib.request.urlopen(f"{self.address}/v1/search?q=red", timeout=60).read()  # noqa: S310  -- our own server
                break
            except OSError:
                has_ended = process.poll() is not None
                if has_ended or time.monotonic() - start_time > START_TIMEOUT:
                    raise SystemExit("error: a server did not start") from None
                time.sleep(0.02)
        self.start_seconds, self.start_cpu = time.monotonic() - start_time, self.read_cpu_seconds()

    def list_processes(self) -> list[int]:
        """Return the ids of the server's process and its workers."""
        children = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True).stdout  # noqa: S603, S607  -- a command of this script
        return [self.process.pid, *map(int, children.split())]

    def read_cpu_seconds(self) -> float:
        ticks = 0
        for pid in self.list_processes():
            # The second field, the program's name in brackets, may have spaces.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])  # in user and in system mode
        return ticks / TICKS_PER_SECOND

    def read_memory(self) -> float:
        """Return the resident memory in MiB."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.list_processes())
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def run_server(command: list[str]) -> Iterator[Server]:
    """Start a server on a free port, and stop it after the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start_time = time.monotonic()
    process = subprocess.Popen(  # noqa: S603  -- a command of this script
        [*command, "--port", str(port)], stdout=subprocess.DEVNULL, env=ENVIRONMENT
    )
    try:
        yield Server(process, port, start_time)
    finally:
        process.terminate()
        process.wait(60)


def measure_rows(name: str, server: Server, scripts: dict[str, Path], args: argparse.Namespace) -> None:
    """Print the rows that both servers have, between two lines with their memory."""
    print(f"{name}, memory {server.read_memory():.0f} MiB")
    send_requests(server, scripts["distinct"], 4, 2)  # warm-up
    measure_row(f"{name}, 1 client", server, scripts["distinct"], 1, args.seconds)
    measure_row(f"{name}, {args.clients} clients", server, scripts["distinct"], args.clients, args.seconds)
    measure_row(f"{name}, {args.clients} send JPEG 500 x 375", server, scripts["upload"], args.clients, args.seconds)
    print(f"{name}, memory {server.read_memory():.0f} MiB afterwards", flush=True)


def measure_row(name: str, server: Server, script: Path, num_clients: int, seconds: int) -> None:
    result = send_requests(server, script, num_clients, seconds)
    print(
        f"{name:<34}{result.rate:>10.1f}{result.median:>9.1f}{result.p99:>9.1f}"
        f"{result.num_refused + result.num_broken:>8}{result.cpu:>9.2f}",
        flush=True,
    )


def send_requests(server: Server, script: Path, num_clients: int, seconds: int) -> LoadResult:
    """Send the requests of a script from many clients, each as soon as its last one is answered."""
    command = ["wrk", "-t1", f"-c{num_clients}", f"-d{seconds}", "--timeout", "30", "--latency", "-s", str(script)]
    initial_cpu = server.read_cpu_seconds()
    output = subprocess.run([*command, server.address], check=True, capture_output=True, text=True).stdout  # noqa: S603  -- a command of this script
    cpu_seconds = server.read_cpu_seconds() - initial_cpu

    num_requests = re.search(r"(\d+) requests in", output)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if num_requests is None or rate is None:
        raise ValueError(f"wrk printed no count of requests and no rate:\n{output}")
    latencies = {}
    for percentile, value, unit in re.findall(r"\b(50|99)%\s+([\d.]+)(us|ms|s|m)\b", output):
        latencies[percentile] = float(value) * MILLISECONDS[unit]
    # wrk prints these lines only where there is something to count.
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
    num_answers = int(num_requests[1])
    return LoadResult(
        num_answers=num_answers,
        num_refused=int(refused[1]) if refused else 0,
        num_broken=sum(map(int, broken.groups())) if broken else 0,
        rate=float(rate[1]),
        median=latencies["50"],
        p99=latencies["99"],
        cpu=1000 * cpu_seconds / max(num_answers, 1),
    )


def measure_overload(server: Server, scripts: dict[str, Path]) -> None:
    """Print what becomes of one client next to 1,000 idle connections, and of 1,900 clients at once."""
    host, port = server.address.removeprefix("http://").split(":")
    connections = [socket.create_connection((host, int(port)), 30) for _ in range(NUM_IDLE)]
    result = send_requests(server, scripts["distinct"], 1, 2)
    for connection in connections:
        connection.close()
    print(
        f"ours, with {NUM_IDLE:,} connections open: {result.num_answers} answers to one client, "
        f"{result.num_refused + result.num_broken} errors"
    )
    result = send_requests(server, scripts["distinct"], CROWD_SIZE, 5)
    print(
        f"ours, {CROWD_SIZE:,} clients at once: {result.num_answers - result.num_refused} answered, "
        f"{result.num_refused} refused with 503, {result.num_broken} broken, {result.cpu:.2f} ms of the processor for "
        "each",
        flush=True,
    )


def measure_query(index: str) -> float:
    """Return the CPU seconds of one query of the command, its start included."""
    usage_before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [*SEARCH_COMMAND, "query", "--index", index, "a red apple"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=ENVIRONMENT)  # noqa: S603  -- a command of this script
    usage_after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage_after.ru_utime + usage_after.ru_stime - usage_before.ru_utime - usage_before.ru_stime


if __name__ == "__main__":
    sys.exit(main())
