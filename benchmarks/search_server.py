"""A search server under concurrent clients: latency and errors, on this machine alone.

    python benchmarks/search_server.py --index indexes/emoji
    python benchmarks/search_server.py --index indexes/icons --clients 100 --requests 20

Starts the server in a process of its own, on a free port of 127.0.0.1, and asks it sentences from that many clients at
once, each of which sends its requests one after the other. The baseline is one client alone, in the same run.
"""

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", required=True)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--requests", type=int, default=20, help="of each client")
    args = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "tools/search.py", "serve", "--index", args.index, "--port", str(port)]
    server = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL)
    try:
        return asyncio.run(measure(args, f"http://127.0.0.1:{port}", server))
    finally:
        server.terminate()
        server.wait(30)


async def measure(args: argparse.Namespace, address: str, server: subprocess.Popen) -> int:
    import httpx

    limits = httpx.Limits(max_connections=args.clients)
    async with httpx.AsyncClient(base_url=address, timeout=120, limits=limits) as client:
        start = time.monotonic()
        while True:
            try:
                about = (await client.get("/health")).json()
                break
            except httpx.TransportError:
                if server.poll() is not None or time.monotonic() - start > 120:
                    print("error: the server did not start", file=sys.stderr)
                    return 2
                await asyncio.sleep(0.2)
        print(f"{about['images']:,} pictures, {os.cpu_count()} cores")
        words = ["apple", "红苹果", "house", "music", "a red car", "箭头", "smile", "flag", "book", "tree"]
        baseline = await run(client, words, 1, args.requests)
        print(f"{'clients':>8}{'answers':>9}{'errors':>8}{'a second':>10}{'p50 ms':>9}{'p99 ms':>9}")
        show(1, baseline)
        crowd = await run(client, words, args.clients, args.requests)
        show(args.clients, crowd)
        ratio = (len(crowd[0]) / crowd[2]) / (len(baseline[0]) / baseline[2])
        print(f"{args.clients} clients get {ratio:.2f} of the answers a second that one client gets")
        return 1 if crowd[1] else 0


async def run(client, words: list[str], clients: int, requests: int) -> tuple[list[float], int, float]:
    """Milliseconds of the answers, number of errors, and seconds in all."""
    times, errors = [], 0

    async def ask(number: int) -> None:
        nonlocal errors
        for request in range(requests):
            start = time.perf_counter()
            response = await client.get("/api/search", params={"q": f"{words[request % len(words)]} {number}"})
            if response.status_code == 200 and response.json()["hits"]:
                times.append(1000 * (time.perf_counter() - start))
            else:
                errors += 1

    start = time.perf_counter()
    await asyncio.gather(*(ask(number) for number in range(clients)))
    return times, errors, time.perf_counter() - start


def show(clients: int, found: tuple[list[float], int, float]) -> None:
    times, errors, seconds = found
    times = sorted(times)
    p50, p99 = (times[min(int(len(times) * share), len(times) - 1)] for share in (0.5, 0.99))
    print(f"{clients:>8}{len(times):>9,}{errors:>8}{len(times) / seconds:>10.1f}{p50:>9.1f}{p99:>9.1f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
