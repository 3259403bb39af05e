"""The random draws of `tasks.dropout`, computed with Python's integers."""

MASK = 2**64 - 1


def mix_bits(x):
    """Apply the finaliser of SplitMix64."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return x ^ x >> 31


def compute_bits(seed, step, view, position, draw, *coordinates):
    """Return the 32 bits of one element, computed with Python's integers."""
    weyl = 0x9E3779B97F4A7C15
    key = 0
    for number in (seed, step, view, position, draw):
        key = mix_bits(key + weyl * (number + 1) & MASK)
    element = 0
    for coordinate in coordinates:
        element = mix_bits(element + weyl * (coordinate + 1) & MASK)
    bits = ((element >> 32) ^ (key & 0xFFFFFFFF)) * 0x85EBCA6B & 0xFFFFFFFF
    return ((bits ^ bits >> 15) + (key >> 32)) * 0xC2B2AE35 & 0xFFFFFFFF


def choose_tokens(seed, step, view, position, num_patches, num_kept):
    """Return the patches with the largest numbers of a row's first draw, ascending; of equal numbers the first."""
    bits = [compute_bits(seed, step, view, position, 0, 0, patch) for patch in range(num_patches)]
    by_size = sorted(range(num_patches), key=lambda patch: (-(bits[patch] >> 8), patch))  # 24 bits of each are used
    return sorted(by_size[:num_kept])
