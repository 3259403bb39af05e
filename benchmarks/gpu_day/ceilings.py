"""Step 3, the machine's own ceilings: products and attention of the towers' shapes, copies, and collectives.

A share of what the machine itself can do says more than a share of a data sheet.
"""

import itertools
from functools import partial
from typing import Any

from benchmarks.gpu_day.measuring import LeftOut, Measurement, Options, Results, make_measurement, time_calls
from ernie_vil2.section import Precision

# Rows of both views that a micro batch of 128 pairs encodes at once; tokens of an image of 224 pixels and of a text.
ROWS, IMAGE_TOKENS, TEXT_TOKENS = 256, 197, 48
WIDTH, HEADS, HEAD_WIDTH = 768, 12, 64
# (inputs, outputs) of the products of a block of ViT-B and ERNIE base: q, k and v, the projection of attention, and
# the two layers of the MLP.
PRODUCTS = ((WIDTH, 3 * WIDTH), (WIDTH, WIDTH), (WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH))
# (tokens, has a mask): of images, and of texts.
ATTENTIONS = ((IMAGE_TOKENS, False), (TEXT_TOKENS, False), (TEXT_TOKENS, True))
COPY_BYTES = 2**30  # above every cache
UPLOAD_BYTES = 1024 * 2 * 3 * 224**2  # two views of the images of a step of 1,024 rows, in uint8
DRY_SCALE = 256  # a dry run divides all numbers of bytes by it
GATHER_BYTES, REDUCE_BYTES = 84 * 10**6, 8 * 10**8  # embeddings of all ranks, and gradients of 202 million parameters


def list_measurements(options: Options) -> list[Measurement]:
    num_ranks = max(2, options.num_gpus)
    return [
        make_measurement("ceilings", "kernels", options, 90),
        make_measurement("ceilings", "collectives", options, 90, num_ranks if options.num_gpus > 1 else 1),
    ]


def measure(name: str, options: Options, results: Results) -> None:
    import paddle

    from ernie_vil2.device import runtime

    if name == "collectives":
        measure_collectives(options, results)
        return
    runtime.set_device(options.device)
    # float32 on a GPU means TF32, unless the environment says otherwise.
    dtypes: list[Precision] = options.choose(["bfloat16", "float32"], ["float32"])
    rows, scale = options.choose((ROWS, 1), (2, DRY_SCALE))
    with paddle.no_grad():
        for dtype in dtypes:
            results.attempt(f"gemm_{dtype}", partial(measure_products, dtype, rows))
        results.attempt("copy", lambda: measure_copy(COPY_BYTES // scale))
        results.attempt("upload", lambda: measure_upload(UPLOAD_BYTES // scale))
    for dtype, (tokens, has_mask) in itertools.product(dtypes, ATTENTIONS):
        results.attempt(
            name_attention(dtype, tokens, has_mask),
            partial(measure_attention, dtype, rows, tokens, has_mask),
        )
    # At the end, because it may crash the process: products with few rows, such as those of the last batch of an epoch,
    # have done so on H20 with Paddle's builds for CUDA 12.3 (its issue 66921).
    results.attempt("thin_product", lambda: measure_thin_product(dtypes[0]))


def measure_products(dtype: Precision, rows: int) -> dict[str, Any]:
    """Return operations a second of the products of a block, of each shape and of all together."""
    import paddle

    figures, flops, seconds = {}, 0.0, 0.0
    for tokens in (IMAGE_TOKENS, TEXT_TOKENS):
        for inputs, outputs in PRODUCTS:
            left = paddle.randn([rows * tokens, inputs]).astype(dtype)
            right = paddle.randn([inputs, outputs]).astype(dtype)
            product_seconds = time_calls(partial(paddle.matmul, left, right))
            product_flops = 2.0 * rows * tokens * inputs * outputs
            figures[f"{rows * tokens}x{inputs}x{outputs}"] = product_flops / product_seconds / 1e12
            flops, seconds = flops + product_flops, seconds + product_seconds
    return {f"gemm_{dtype}_tflops": flops / seconds / 1e12, f"gemm_{dtype}_shapes": figures}


def name_attention(dtype: str, tokens: int, has_mask: bool) -> str:
    return f"attention_{dtype}_{tokens}{'_masked' if has_mask else ''}"


def measure_attention(dtype: Precision, rows: int, tokens: int, has_mask: bool) -> dict[str, Any]:
    """Return milliseconds of fused attention, of forward alone and with backward, and operations a second."""
    import paddle
    from paddle.nn import functional as F

    shape = [rows, tokens, HEADS, HEAD_WIDTH]
    query, key, value = (paddle.randn(shape).astype(dtype) for _ in range(3))
    for tensor in (query, key, value):
        tensor.stop_gradient = False
    upstream = paddle.randn(shape).astype(dtype)
    mask = paddle.zeros([rows, 1, tokens, tokens], dtype) if has_mask else None

    def forward() -> Any:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)

    def forward_and_backward() -> None:
        paddle.autograd.backward([forward()], [upstream])
        for tensor in (query, key, value):
            tensor.clear_gradient()

    with paddle.no_grad():
        forward_seconds = time_calls(forward)
    step_seconds = time_calls(forward_and_backward)
    # Two products in forward, each with a multiplication and an addition.
    flops = 4.0 * rows * HEADS * tokens**2 * HEAD_WIDTH
    name = name_attention(dtype, tokens, has_mask)
    return {
        f"{name}_forward_ms": 1e3 * forward_seconds,
        f"{name}_ms": 1e3 * step_seconds,
        f"{name}_forward_tflops": flops / forward_seconds / 1e12,
    }


def measure_thin_product(dtype: Precision) -> dict[str, Any]:
    """Return milliseconds of a product with eight rows."""
    import paddle

    left, right = paddle.randn([8, WIDTH]).astype(dtype), paddle.randn([WIDTH, 4 * WIDTH]).astype(dtype)
    return {"thin_product_ms": 1e3 * time_calls(lambda: paddle.matmul(left, right))}


def measure_copy(num_bytes: int) -> dict[str, Any]:
    """Return bytes a second that a copy in the device's memory reads and writes."""
    import paddle

    source = paddle.ones([num_bytes // 4])
    target = paddle.zeros([num_bytes // 4])
    seconds = time_calls(lambda: paddle.assign(source, target))
    return {"copy_tb_per_second": 2 * num_bytes / seconds / 1e12}


def measure_upload(num_bytes: int) -> dict[str, Any]:
    """Return bytes a second from pinned memory to the device, as batches are copied."""
    import numpy as np
    import paddle

    from ernie_vil2.device.transfers import Gpu

    array = np.zeros(num_bytes, np.uint8)
    if paddle.get_device() == "cpu":
        seconds = time_calls(lambda: paddle.to_tensor(array))
    else:
        gpu = Gpu()
        pinned = gpu.allocate_pinned(array)
        seconds = time_calls(lambda: gpu.start_upload(pinned)[1].cpu_wait())
    return {"upload_gb_per_second": num_bytes / seconds / 1e9}


def measure_collectives(options: Options, results: Results) -> None:
    """Add milliseconds of the collectives of a step over all ranks, and the bytes a second that leave a rank."""
    import paddle

    from ernie_vil2.device import runtime
    from ernie_vil2.parallel import collectives
    from ernie_vil2.parallel.collectives import count_sent_bytes
    from ernie_vil2.parallel.ranks import join_ranks

    if options.num_gpus < 2:
        raise LeftOut("needs two GPUs")
    runtime.set_device(options.device)
    _, ranks = join_ranks()
    scale = options.choose(1, DRY_SCALE)
    results.add(ranks=ranks)

    gathered = paddle.ones([GATHER_BYTES // scale // 4 // ranks])
    reduced = paddle.ones([REDUCE_BYTES // scale // 4])
    calls = {
        "gather": ("all_gather", gathered, lambda: collectives.all_gather(gathered, wait=False)),
        "reduce": ("all_reduce", reduced, lambda: collectives.all_reduce(reduced, wait=False)),
    }
    for name, (kind, tensor, call) in calls.items():
        # All ranks have to make the same number of calls, so it does not depend on the time that one takes.
        seconds = _time_collective(call)
        sent = count_sent_bytes(kind, tensor.size * 4, ranks)
        results.add(**{f"{name}_ms": 1e3 * seconds, f"{name}_gb_per_second": sent / seconds / 1e9})


def _time_collective(call: Any, num_calls: int = 10) -> float:
    """Return the mean seconds of a collective, after two calls that set it up."""
    import time

    from benchmarks.gpu_day.measuring import wait_for_device

    for _ in range(2):
        call()
    wait_for_device()
    start = time.perf_counter()
    for _ in range(num_calls):
        call()
    wait_for_device()
    return (time.perf_counter() - start) / num_calls
