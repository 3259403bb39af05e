"""What other libraries find of altered copies: the methods that `benchmarks/likeness.py` compares with the product's.

A method takes images and queries, or None for the images among themselves, and returns pairs of a query and an image.
"""

from collections.abc import Callable, Sequence

import cv2
import faiss
import numpy as np
from PIL import Image

Images = Sequence[Image.Image]
Pairs = dict[tuple[int, int], bool]  # whether a query and an image differ in a spot, which these methods do not tell

PHASH_BITS = 10  # imagehash's users take 8 to 12 of 64
ORB_SIDE, ORB_FEATURES = 320, 300  # pixels of an image's longer side; most features of an image
ORB_IMAGES = 5  # images whose features are nearest to a query's, which are compared by a homography
ORB_INLIERS = 25  # the lowest limit without false photographs on the half `develop`; drawings share parts up to 62
ORB_ERROR = 4.0  # pixels by which a feature may miss its place under the homography
EMBEDDING_COSINE = 0.95  # of the demo's model; no false drawings on the half `develop` from 0.89 on


def find_by_phash(images: Images, queries: Images | None) -> Pairs:
    """Return the pairs whose perceptual hashes (imagehash) differ in few bits."""
    import imagehash

    hashes = np.stack([imagehash.phash(image).hash.ravel() for image in images])
    asked = hashes if queries is None else np.stack([imagehash.phash(image).hash.ravel() for image in queries])
    pairs = {}
    for query, bits in enumerate(asked):
        for image in np.flatnonzero((hashes != bits).sum(axis=1) <= PHASH_BITS).tolist():
            if queries is not None or query < image:
                pairs[query, image] = False
    return pairs


def find_by_orb(images: Images, queries: Images | None) -> Pairs:
    """Return the pairs whose ORB features (OpenCV) lie on each other under a homography."""
    features = [_describe(image) for image in images]
    asked = features if queries is None else [_describe(image) for image in queries]
    owners = np.repeat(np.arange(len(features)), [len(descriptors) for _, descriptors in features])
    index = faiss.IndexBinaryFlat(256)
    index.add(np.concatenate([descriptors for _, descriptors in features]))
    pairs = {}
    for query, (places, descriptors) in enumerate(asked):
        if not len(descriptors):
            continue
        _, nearest = index.search(descriptors, 3)
        votes = np.bincount(owners[nearest].ravel(), minlength=len(features))
        if queries is None:
            votes[: query + 1] = 0  # each pair once
        for image in np.argsort(-votes, kind="stable")[:ORB_IMAGES].tolist():
            if votes[image] and _count_inliers(places, descriptors, *features[image]) >= ORB_INLIERS:
                pairs[query, image] = False
    return pairs


def _describe(image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Return the places `[F, 2]` and the descriptors `[F, 32]` of an image's ORB features."""
    scale = ORB_SIDE / max(image.size)
    resized = image.convert("L").resize((round(image.width * scale), round(image.height * scale)))
    keypoints, descriptors = cv2.ORB.create(ORB_FEATURES).detectAndCompute(np.asarray(resized), None)
    if descriptors is None:
        return np.empty((0, 2), np.float32), np.empty((0, 32), np.uint8)
    return np.array([keypoint.pt for keypoint in keypoints], np.float32), descriptors


def _count_inliers(
    places: np.ndarray, descriptors: np.ndarray, other_places: np.ndarray, other_descriptors: np.ndarray
) -> int:
    """Return how many features of two images, `[F, 2]` and `[F, 32]` of each, one homography lays on each other."""
    matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(descriptors, other_descriptors)
    if len(matches) < 4:  # a homography has eight numbers
        return 0
    sources = places[[match.queryIdx for match in matches]]
    targets = other_places[[match.trainIdx for match in matches]]
    _, is_inlier = cv2.findHomography(sources, targets, cv2.RANSAC, ORB_ERROR)
    return 0 if is_inlier is None else int(is_inlier.sum())


def make_embedding_method(model_name: str) -> Callable[[Images, Images | None], Pairs]:
    """Return the method that compares the embeddings of a model, named as for `load_model`."""
    import ernie_vil2

    model = ernie_vil2.load_model(model_name)

    def find_by_embedding(images: Images, queries: Images | None) -> Pairs:
        """Return the pairs whose embeddings have a high cosine."""
        rows = model.encode_images(images)
        cosines = rows @ rows.T if queries is None else model.encode_images(queries) @ rows.T
        pairs = {}
        for query, image in np.argwhere(cosines >= EMBEDDING_COSINE).tolist():
            if queries is not None or query < image:
                pairs[query, image] = False
        return pairs

    return find_by_embedding
