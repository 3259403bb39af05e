"""A search server under clients, next to a plain one of FastAPI and faiss with the same index, in the same run.

    python benchmarks/search_server.py --index indexes/emoji
    python benchmarks/search_server.py --index indexes/icons --seconds 20
    python benchmarks/search_server.py --index indexes/emoji --workers 2 --skip-plain

`wrk` (Debian's package) asks over loopback: one client, and 100 of them, a list of 6,000 distinct queries with the
cache off; 40 queries again and again with the cache on; and JPEG files of 500 x 375 that are sent. Each row has
answers a second, milliseconds of the median and of the slowest hundredth, errors, and milliseconds of the server's
processor for an answer, of all its processes together. The last is comparable on a machine that others use as well; the
rest is not. Then: the start, memory, 1,000 connections, what is refused when 1,900 ask at once, and one query of the
command.
"""

import argparse
import io
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
from contextlib import contextmanager
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
PLAIN = [sys.executable, "-W", "ignore", "benchmarks/plain_search.py"]
OURS = [sys.executable, "-W", "ignore", "tools/search.py", "serve", "--trusted-proxy", "127.0.0.1"]
QUERIES, REPEATED, FILES = 6000, 40, 50
UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}
TICKS = os.sysconf("SC_CLK_TCK")
ASK = """
local queries, number = {}, 0
for line in io.lines("%s") do queries[#queries + 1] = line end
request = function()
  number = number %% #queries + 1
  return wrk.format("GET", "/v1/search?q=" .. queries[number])
end
"""
SEND = """
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", required=True)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--seconds", type=int, default=10, help="of each row")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--skip-plain", action="store_true", help="without the baseline")
    args = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("error: wrk asks the servers: apt-get install wrk")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(10_000, hard), hard))
    with tempfile.TemporaryDirectory() as folder:
        scripts = prepare(args.index, Path(folder))
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the run; {args.index}")
        print(f"{'':<34}{'answers/s':>10}{'p50 ms':>9}{'p99 ms':>9}{'errors':>8}{'CPU ms':>9}", flush=True)
        if not args.skip_plain:
            with served([*PLAIN, "--index", args.index]) as server:
                rows("plain", server, scripts, args)
        ours = [*OURS, "--index", args.index, "--workers", str(args.workers)]
        with served([*ours, "--cache", "0"]) as server:
            rows("ours", server, scripts, args)
            overload(server, scripts)
        with served(ours) as server:
            print(row("ours, 40 queries, cache", server, scripts["repeated"], args.clients, args.seconds))
            print(f"\nfirst answer after {server.started:.1f} s and {server.started_cpu:.2f} s of the processor")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    query = [sys.executable, "-W", "ignore", "tools/search.py", "query", "--index", args.index, "a red apple"]
    subprocess.run(query, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(ROOT)})  # noqa: S603  -- a command of this script
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"one query of the command takes {seconds:.2f} s of the processor")
    return 0


def prepare(index: str, folder: Path) -> dict[str, Path]:
    """Write the queries and uploads of the clients, as scripts of wrk."""
    from urllib.parse import quote_plus

    from PIL import Image

    from ernie_vil2.apps.search import open_index

    with open_index(index) as opened:
        captions = opened.collection("images").sample_captions(2000)
    queries = [f"{text}{more}" for more in ("", *(f" {n}" for n in range(QUERIES))) for text in captions][:QUERIES]
    rng = np.random.default_rng(0)
    for number in range(1, FILES + 1):
        coarse = Image.fromarray(rng.integers(0, 256, [24, 32, 3], np.uint8)).resize((500, 375))
        content = io.BytesIO()
        coarse.save(content, "jpeg", quality=90)
        (folder / f"{number}.jpg").write_bytes(content.getvalue())
    scripts = {}
    for name, chosen in (("distinct", queries), ("repeated", queries[:REPEATED])):
        (folder / f"{name}.txt").write_text("\n".join(map(quote_plus, chosen)))
        scripts[name] = folder / f"{name}.lua"
        scripts[name].write_text(ASK % (folder / f"{name}.txt"))
    scripts["send"] = folder / "send.lua"
    scripts["send"].write_text(SEND % (FILES, folder))
    return scripts


class Server:
    """A server in processes of its own."""

    def __init__(self, process: subprocess.Popen, port: int, began: float):
        self.process, self.address = process, f"http://127.0.0.1:{port}"
        while True:
            try:
                urllib.request.urlopen(f"{self.address}/v1/search?q=red", timeout=60).read()  # noqa: S310  -- our own server
                break
            except OSError:
                if process.poll() is not None or time.monotonic() - began > 300:
                    raise SystemExit("error: a server did not start") from None
                time.sleep(0.02)
        self.started, self.started_cpu = time.monotonic() - began, self.cpu()

    def processes(self) -> list[int]:
        found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True).stdout  # noqa: S603, S607  -- a command of this script
        return [self.process.pid, *map(int, found.split())]

    def cpu(self) -> float:
        """Return the seconds of the processor so far."""
        total = 0
        for pid in self.processes():
            total += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
        return total / TICKS

    def resident(self) -> float:
        """Return the memory in MiB."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.processes())
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def served(command: list[str]):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    began = time.monotonic()
    process = subprocess.Popen([*command, "--port", str(port)], cwd=ROOT, stdout=subprocess.DEVNULL,  # noqa: S603  -- a command of this script
                               env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip
    try:
        yield Server(process, port, began)
    finally:
        process.terminate()
        process.wait(60)


def rows(name: str, server: Server, scripts: dict[str, Path], args: argparse.Namespace) -> None:
    print(f"{name + ', memory ' + format(server.resident(), '.0f') + ' MiB':<34}")
    asked(server, scripts["distinct"], 4, 2)  # both are warm then
    for clients in (1, args.clients):
        print(row(f"{name}, {clients} client{'s'[: clients > 1]}", server, scripts["distinct"], clients, args.seconds))
    print(row(f"{name}, {args.clients} send JPEG 500 x 375", server, scripts["send"], args.clients, args.seconds))
    print(f"{name + ', memory ' + format(server.resident(), '.0f') + ' MiB afterwards':<34}", flush=True)


def asked(server: Server, script: Path, clients: int, seconds: int) -> dict[str, float]:
    before = server.cpu()
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}", "--timeout", "30", "--latency", "-s", str(script),
               server.address]  # fmt: skip
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603  -- a command of this script
    used = server.cpu() - before
    found = {f"p{share}": float(value) * UNITS[unit]
             for share, value, unit in re.findall(r"(50|99)%\s+([\d.]+)(us|ms|s|m)\b", shown)}  # fmt: skip
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", shown)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", shown)
    found["refused"] = int(refused[1]) if refused else 0
    found["errors"] = found["refused"] + (sum(map(int, broken.groups())) if broken else 0)
    num_requests = re.search(r"(\d+) requests in", shown)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", shown)
    if num_requests is None or rate is None:
        raise ValueError(f"wrk printed no count of requests and no rate:\n{shown}")
    answers = int(num_requests[1])
    found |= {"answers": answers, "rate": float(rate[1])}
    return found | {"cpu": 1000 * used / max(answers, 1)}


def row(name: str, server: Server, script: Path, clients: int, seconds: int) -> str:
    found = asked(server, script, clients, seconds)
    return (f"{name:<34}{found['rate']:>10.1f}{found['p50']:>9.1f}{found['p99']:>9.1f}{found['errors']:>8}"
            f"{found['cpu']:>9.2f}")  # fmt: skip


def overload(server: Server, scripts: dict[str, Path]) -> None:
    """1,000 connections that ask nothing, and 2,000 that all ask at once."""
    host, port = server.address.removeprefix("http://").split(":")
    idle = [socket.create_connection((host, int(port)), 30) for _ in range(1000)]
    crowded = asked(server, scripts["distinct"], 1, 2)
    for one in idle:
        one.close()
    print(f"ours, with 1,000 connections open: {crowded['answers']} answers to one client, {crowded['errors']} errors")
    crowd = asked(server, scripts["distinct"], 1900, 5)
    print(f"ours, 1,900 clients at once: {crowd['answers'] - crowd['refused']} answered, {crowd['refused']} refused "
          f"with 503, {crowd['errors'] - crowd['refused']} broken, {crowd['cpu']:.2f} ms of the processor for each",
          flush=True)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
