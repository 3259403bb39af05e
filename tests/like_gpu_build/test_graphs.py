"""Graphs that are traced in a GPU build have the operations of a CPU build, and `plan` counts the same."""

import paddle
import pytest
from paddle import nn
from paddle.nn import functional as F
from paddle.nn.attention import SDPBackend

from ernie_vil2.config import load_config
from ernie_vil2.device.tracing import tracing
from ernie_vil2.planning.towers import Towers, operations

LINEAR_FLAG = "FLAGS_use_legacy_linear"


def list_operations(encode, batch):
    return [op.name().removeprefix("pd_op.") for op in operations(encode, batch)]


def trace_with_paddle(layer, shape):
    """Return the names of the operations in the graph that Paddle traces by itself."""
    spec = paddle.static.InputSpec(shape)
    program = paddle.jit.to_static(layer, input_spec=[spec], full_graph=True).forward.concrete_program.main_program
    return [op.name().removeprefix("pd_op.") for op in program.global_block().ops]


def test_linear_layers_become_matrix_products(gpu_build):
    assert "linear_v2" in trace_with_paddle(nn.Linear(3, 4), [2, 3])
    assert list_operations(nn.Linear(3, 4), paddle.ones([2, 3]))[-2:] == ["matmul", "add"]
    assert "linear_v2" in trace_with_paddle(nn.Linear(3, 4), [2, 3])


def test_fused_attention_becomes_matrix_products(monkeypatch):
    # As on a GPU, Paddle may choose its memory-efficient kernel, which has no form in ONNX and no kernel on a CPU.
    monkeypatch.setitem(paddle.nn.attention.sdpa._backend_enabled, SDPBackend.EFFICIENT_ATTENTION, True)
    monkeypatch.setattr(paddle.nn.functional.sdpa, "can_use_mem_efficient_attention", lambda parameters: True)

    def attend(tokens):
        return F.scaled_dot_product_attention(tokens, tokens, tokens)

    with pytest.raises(Exception, match="memory_efficient_attention"):
        attend(paddle.ones([1, 8, 2, 16]))
    assert list_operations(attend, paddle.ones([1, 8, 2, 16])).count("matmul") == 2


@pytest.mark.parametrize("previous", [False, True])
def test_flag_is_restored_after_an_error(previous):
    def fail():
        assert paddle.get_flags(LINEAR_FLAG) == {LINEAR_FLAG: True}
        raise RuntimeError("not today")

    paddle.set_flags({LINEAR_FLAG: previous})
    try:
        with pytest.raises(RuntimeError, match="not today"), tracing():
            fail()
        assert paddle.get_flags(LINEAR_FLAG) == {LINEAR_FLAG: previous}
    finally:
        paddle.set_flags({LINEAR_FLAG: False})


def test_plan_counts_as_many_operations_as_in_a_cpu_build(request):
    config = load_config(None, [
        "Model.image={name: ViT, image_size: 32, patch_size: 8, width: 64, depth: 2, heads: 4}",
        "Model.text={name: ernie, width: 32, depth: 2, heads: 4}",
    ])  # fmt: skip
    expected = [Towers(config).row_flops(kind) for kind in ("image", "text")]
    request.getfixturevalue("gpu_build")
    assert [Towers(config).row_flops(kind) for kind in ("image", "text")] == expected
