"""Methods of other libraries to find altered copies, with which `benchmarks/likeness.py` compares the package's.

A method takes images, and queries or None for the images among themselves. It returns the pairs of a query and an image
that it takes for copies.
"""

from collections.abc import Callable, Sequence

import cv2
import faiss
import numpy as np
from PIL import Image

Images = Sequence[Image.Image]
Pairs = dict[tuple[int, int], bool]
"""Numbers of a query and an image -> whether the two differ in a spot, which the methods of this module cannot tell."""

PHASH_BITS = 10  # most bits of 64 in which copies differ; imagehash's users take 8 to 12
ORB_SIDE = 320  # pixels of an image's longer side
ORB_FEATURES = 300  # most features of an image
ORB_NEIGHBOURS = 3  # nearest features of other images that vote for their image
ORB_IMAGES = 5  # images with the most votes, which a homography compares with the query
# Least number of features that one homography maps: the lowest limit without false photographs on the half `develop`.
# Drawings share parts with up to 62.
ORB_INLIERS = 25
ORB_ERROR = 4.0  # pixels by which the homography may miss a feature
EMBEDDING_COSINE = 0.95  # of the demo's model; no false drawings on the half `develop` from 0.89 on


def find_by_phash(images: Images, queries: Images | None) -> Pairs:
    """Return the pairs whose perceptual hashes (imagehash) differ in few bits."""
    image_hashes = _hash(images)
    query_hashes = image_hashes if queries is None else _hash(queries)
    pairs = {}
    for query, query_hash in enumerate(query_hashes):
        distances = (image_hashes != query_hash).sum(axis=1)
        for image in np.flatnonzero(distances <= PHASH_BITS).tolist():
            if queries is not None or query < image:  # each pair of the images once
                pairs[query, image] = False
    return pairs


def _hash(images: Images) -> np.ndarray:
    """Return the perceptual hashes of images, `[N, 64]` bool."""
    import imagehash

    return np.stack([imagehash.phash(image).hash.ravel() for image in images])


def find_by_orb(images: Images, queries: Images | None) -> Pairs:
    """Return the pairs whose ORB features (OpenCV) lie on each other under a homography."""
    image_features = [_describe(image) for image in images]
    query_features = image_features if queries is None else [_describe(query) for query in queries]
    counts = [len(descriptors) for _, descriptors in image_features]
    image_of_feature = np.repeat(np.arange(len(images)), counts)
    index = faiss.IndexBinaryFlat(256)
    index.add(np.concatenate([descriptors for _, descriptors in image_features]))

    pairs = {}
    for query, (positions, descriptors) in enumerate(query_features):
        if not len(descriptors):
            continue
        _, neighbours = index.search(descriptors, ORB_NEIGHBOURS)
        votes = np.bincount(image_of_feature[neighbours].ravel(), minlength=len(images))
        if queries is None:
            votes[: query + 1] = 0  # each pair of the images once
        for image in np.argsort(-votes, kind="stable")[:ORB_IMAGES].tolist():
            if votes[image] and _count_inliers(positions, descriptors, *image_features[image]) >= ORB_INLIERS:
                pairs[query, image] = False
    return pairs


def _describe(image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions `[F, 2]`, float32 in pixels, and the descriptors `[F, 32]`, uint8, of ORB features."""
    scale = ORB_SIDE / max(image.size)
    resized = image.convert("L").resize((round(image.width * scale), round(image.height * scale)))
    keypoints, descriptors = cv2.ORB.create(ORB_FEATURES).detectAndCompute(np.asarray(resized), None)
    if descriptors is None:
        return np.empty((0, 2), np.float32), np.empty((0, 32), np.uint8)
    return np.array([keypoint.pt for keypoint in keypoints], np.float32), descriptors


def _count_inliers(
    query_positions: np.ndarray,
    query_descriptors: np.ndarray,
    image_positions: np.ndarray,
    image_descriptors: np.ndarray,
) -> int:
    """Return how many features of a query one homography maps to features of an image; arrays as of `_describe`."""
    matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(query_descriptors, image_descriptors)
    if len(matches) < 4:  # a homography has eight numbers
        return 0
    sources = query_positions[[match.queryIdx for match in matches]]
    targets = image_positions[[match.trainIdx for match in matches]]
    _, is_inlier = cv2.findHomography(sources, targets, cv2.RANSAC, ORB_ERROR)
    return 0 if is_inlier is None else int(is_inlier.sum())


def make_embedding_method(model_name: str) -> Callable[[Images, Images | None], Pairs]:
    """Return the method that compares embeddings.

    Args:
        model_name: model as for `load_model`.
    """
    import ernie_vil2

    model = ernie_vil2.load_model(model_name)

    def find_by_embedding(images: Images, queries: Images | None) -> Pairs:
        """Return the pairs whose embeddings have a high cosine."""
        image_embeddings = model.encode_images(images)
        query_embeddings = image_embeddings if queries is None else model.encode_images(queries)
        cosines = query_embeddings @ image_embeddings.T
        pairs = {}
        for query, image in np.argwhere(cosines >= EMBEDDING_COSINE).tolist():
            if queries is not None or query < image:  # each pair of the images once
                pairs[query, image] = False
        return pairs

    return find_by_embedding
