"""Kernels that are counted on a CPU agree with Paddle's profiler, its allocator, and arithmetic by hand."""

from collections import Counter

import paddle
import pytest
from paddle import nn, profiler
from paddle.nn import functional as F

from benchmarks.kernel_counter import KernelCounter


@pytest.fixture
def counter():
    """Return a counter within its patches."""
    counter = KernelCounter()
    with counter.patch():
        yield counter


def list_launches(node):
    """Yield the names of the kernels below a node of the profiler's tree."""
    name, separator, _ = node.name.partition(" kernel launch")
    if separator:
        yield name
    for child in node.children_node:
        yield from list_launches(child)


def test_launches_are_those_of_paddles_profiler(counter):
    net = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 8))
    embedding, x = nn.Embedding(5, 8), paddle.randn([4, 3, 8])
    x.stop_gradient = False

    def run():
        tokens = x + net(x)
        weights = F.softmax(0.5 * tokens.transpose([0, 2, 1]).reshape([4, -1]))
        mean = embedding(paddle.to_tensor([2, 2, 0, 1])).exp().mean()
        (weights * weights).sum().sqrt().multiply(mean).backward()

    run()
    trace = profiler.Profiler(scheduler=(0, 1), on_trace_ready=lambda _: None)
    trace.start()
    with counter.count() as cost:
        run()
    trace.stop()
    expected = Counter()
    for root in trace.profiler_result.get_data().values():
        expected.update(list_launches(root))
    expected["full"] -= 1  # the gradient of the loss, with which backward begins
    expected["embedding_grad"] += 1  # which the profiler does not show

    # The profiler also shows views, and the operations of our linear layers under the same names, but no sums.
    sums = cost.kinds["sums of gradients"].launches
    launches = cost.kernels + cost.views - Counter(add=sums, contiguous=cost.kernels["contiguous"])
    launches["scale"] += launches.pop("scale_grad")  # one kernel for both
    assert launches == +expected
    # x and the weights are used twice, and x and all parameters have a gradient of the first run.
    assert sums == 2 + 1 + len(net.parameters()) + len(embedding.parameters())


def test_bytes_of_an_activation_equal_those_by_hand(counter):
    x = paddle.randn([4, 8])
    x.stop_gradient = False
    with counter.count() as cost:
        F.gelu(x).backward(paddle.ones([4, 8]))
    # Forward reads and writes 128 bytes; backward reads the input and a gradient, and writes one.
    assert vars(cost.kinds["activations"]) == {"launches": 2, "num_bytes": (2 + 3) * 128}
    assert cost.held_bytes == 128


def test_mixed_precision_adds_casts_of_weights(counter):
    linear, x = nn.Linear(8, 16), paddle.randn([4, 8])
    with counter.count() as cost, paddle.amp.auto_cast(dtype="bfloat16"):
        y = linear(x)
        assert y.dtype == paddle.bfloat16
        z = F.gelu(y)
        z.sum().backward()
    rows, weights = 4 * 8, 8 * 16 + 16
    # Input, weight and bias, and the 64 elements that are summed in float32; x has no gradient. All of them are read
    # in 4 bytes and written in 2, or the other way round.
    assert vars(cost.kinds["casts"]) == {"launches": 4 + 3, "num_bytes": 6 * (rows + 2 * weights + 2 * 64)}
    # 64 elements of 16 bits: read and written, then the input and a gradient read, and a gradient written.
    assert cost.kinds["activations"].num_bytes == (2 + 3) * 2 * 64
    # The product reads its input, weight and bias, which are saved, and writes 64 elements. Their gradient is read
    # again, and those of weight and bias are written.
    assert cost.kinds["matrix products"].num_bytes == 2 * (2 * (rows + weights + 64) + weights)


def test_views_launch_nothing_but_what_copies_them(counter):
    x = paddle.randn([2, 3, 4])
    with counter.count() as cost:
        x.transpose([0, 2, 1]).flatten(1).unsqueeze(0)
    # A transposed tensor cannot be flattened without a copy.
    assert cost.views == {"transpose": 1, "unsqueeze": 1} and cost.launches == 1
    with counter.count() as cost:
        F.softmax(x.transpose([0, 2, 1]))
    assert vars(cost.kinds["copies of views"]) == {"launches": 1, "num_bytes": 2 * 96}


def test_gradients_of_a_tensor_used_twice_are_added(counter):
    x = paddle.randn([4, 8])
    x.stop_gradient = False
    with counter.count() as cost:
        y = x.exp()
        (y.sin() + y.cos() + y.tanh()).sum().backward()
    assert vars(cost.kinds["sums of gradients"]) == {"launches": 2, "num_bytes": 2 * 3 * 128}
    assert cost.views["add_grad"] == 2, "gradients of sums are views of one"


def test_fused_attention_is_one_kernel_that_holds_no_weights(counter):
    qkv, gradient = paddle.randn([2, 8, 3, 2, 8]), paddle.ones([2, 8, 2, 8])  # [B, L, 3, heads, d]
    qkv.stop_gradient = False
    with counter.count() as cost:
        mixed, _ = F.flash_attn_qkvpacked(qkv)
        mixed.backward(gradient)
    inputs, result = 4 * 768, 4 * 256
    assert vars(cost.kinds["attention"]) == {"launches": 2, "num_bytes": 3 * inputs + 3 * result}
    assert cost.launches == 2 and cost.held_bytes == inputs + result


def test_package_is_told_that_its_tensors_lie_on_a_gpu(counter):
    x = paddle.ones([1])
    assert x.place.is_cpu_place()
    assert eval("x.place.is_gpu_place()", {"__name__": "ernie_vil2.towers", "x": x})  # noqa: S307
