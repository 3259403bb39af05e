"""Weights and pixels that follow from a name and a shape alone, so that no file has to carry them.

Two environments make the same arrays: that of OpenCLIP, and that of the tests. NumPy promises the same raw numbers of
PCG64 in all versions, but not the same normal distribution, so that the numbers are uniform.
"""

import hashlib

import numpy as np

UNIT_BOUND = 3**0.5  # uniform numbers between -UNIT_BOUND and UNIT_BOUND have variance 1


def draw_numbers(name, shape):
    """Return float32 numbers of mean 0 and variance 1, which depend on the name and on the number of elements."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    num_elements = int(np.prod(shape))
    raw = np.random.PCG64(seed).random_raw((num_elements + 1) // 2).view(np.uint32)[:num_elements]
    # The upper 24 bits of a raw number are exact in float32.
    numbers = (raw >> 8).astype(np.float32)
    numbers *= np.float32(2**-23 * UNIT_BOUND)
    numbers -= np.float32(UNIT_BOUND)
    return numbers.reshape(shape)


def fill_array(name, shape):
    """Return a float32 weight with numbers that keep activations near 1.

    Args:
        name: name of the weight in its file.
        shape: its shape.
    """
    numbers = draw_numbers(name, shape)
    if name.endswith(("logit_scale", "logit_bias")):
        return np.add(numbers, 2, out=numbers)  # any small number will do: embeddings depend on neither
    if len(shape) >= 2:
        # A matrix is [outputs, inputs, ...]. Divided by the root of its inputs it keeps the variance of what it reads.
        num_inputs = int(np.prod(shape[1:]))
        return np.multiply(numbers, np.float32(num_inputs**-0.5), out=numbers)
    # Scales of norms are around 1, biases around 0. Neither is exactly that, so that each of them has an influence.
    centre = 1 if name.endswith(("weight", "gamma", "running_var")) else 0
    numbers *= np.float32(0.2)
    return np.add(numbers, centre, out=numbers)


def draw_pixels(image_size, num_images):
    """Return normalised pixels `[N, 3, image_size, image_size]`, which are noise around one colour per image."""
    colours = draw_numbers("colours", (num_images, 3, 1, 1))
    return colours * np.float32(0.5) + draw_numbers(f"pixels {image_size}", (num_images, 3, image_size, image_size))
