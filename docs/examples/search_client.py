"""Asks a search server, started by `ernie-vil2 search serve --index INDEX`, for images by texts or by an image.

python docs/examples/search_client.py "a red apple" 红苹果
python docs/examples/search_client.py --image cat.jpg --address http://search.example.com --token SECRET
"""

import argparse
import json
import urllib.error
import urllib.request
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="*")
    parser.add_argument("--image", type=Path)
    parser.add_argument("--address", default="http://127.0.0.1:8000")
    parser.add_argument("--token", default="", help="of --token-file")
    parser.add_argument("--count", type=int, default=5)
    options = parser.parse_args()

    def ask(path: str, body: bytes) -> dict:
        headers = {"Authorization": f"Bearer {options.token}"}
        address = f"{options.address.rstrip('/')}/v1/{path}"
        request = urllib.request.Request(address, body, headers)  # noqa: S310  -- an address that the user or the script has named
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310  -- an address that the user or the script has named
                return json.load(answer)
        except urllib.error.HTTPError as error:  # the server says why
            raise SystemExit(f"error: {address}: {error.code}: {error.read(1000).decode(errors='replace')}") from None

    if options.texts:  # in one request
        queries = {"queries": [{"text": text} for text in options.texts], "count": options.count}
        results = ask("search/batch", json.dumps(queries).encode())["results"]
        for text, hits in zip(options.texts, results, strict=True):
            print(text, *(f"  {hit['score']:.3f}  {hit['id']}" for hit in hits), sep="\n")
    if options.image:
        hits = ask(f"search/image?count={options.count}", options.image.read_bytes())["hits"]
        print(options.image, *(f"  {hit['score']:.3f}  {hit['id']}" for hit in hits), sep="\n")


if __name__ == "__main__":
    main()
