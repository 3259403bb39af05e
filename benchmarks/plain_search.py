"""A plain search server, as one writes it in an hour: FastAPI, a flat index of faiss, one query at a time.

    python benchmarks/plain_search.py --index indexes/emoji --port 8001

The baseline of search_server.py: the same model, embeddings and answers, nothing else of the product's server.
"""

import argparse
import sys
from pathlib import Path

import faiss
import numpy as np
import uvicorn
from fastapi import FastAPI, Request

sys.path.insert(0, str(Path(__file__).parents[1]))

from ernie_vil2.apps.search import open_index
from ernie_vil2.apps.search.local_collection import LocalCollection


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", required=True)
    parser.add_argument("--port", type=int, required=True)
    args = parser.parse_args()
    index = open_index(args.index)
    images, model = index.collection("images"), index.model
    if not isinstance(images, LocalCollection):
        parser.error(f"{args.index} holds no rows: name the folder of an index")
    flat = faiss.IndexFlatIP(model.embed_dim)
    flat.add(np.asarray(images.rows, np.float32))
    items = [{"id": item.id, "fields": dict(item.fields)} for item in images.iterate_items()]
    app = FastAPI()

    def closest(vector: np.ndarray, count: int) -> dict:
        scores, rows = flat.search(vector, count)
        return {"hits": [items[row] | {"score": float(score)} for score, row in zip(scores[0], rows[0], strict=True)]}

    @app.get("/v1/search")
    def by_text(q: str, count: int = 40) -> dict:
        return closest(model.encode_texts([q]), count)

    @app.post("/v1/search/image")
    async def by_image(request: Request, count: int = 40) -> dict:
        return closest(model.encode_images([await request.body()]), count)

    uvicorn.run(app, port=args.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
