"""The maps on a local Ray cluster of two nodes give the parts that processes give; run where Ray is installed."""

import pytest

from ernie_vil2.curation import curate
from ernie_vil2.data.readers import open_sources
from ernie_vil2.device.extras import MissingPackage, installed
from tests.curation.test_run import RULES, crawl, table  # noqa: F401 - a fixture


@pytest.mark.skipif(installed("ray"), reason="Ray is installed")
def test_without_ray_the_extra_is_named(tmp_path, crawl, steps):  # noqa: F811
    paths = list(map(str, crawl))
    with pytest.raises(MissingPackage, match=r"--ray needs ray, which is not installed: .*\[ray\]"):
        curate(
            open_sources(paths), steps(RULES), tmp_path / "ray", ray="local", open_source=lambda: open_sources(paths)
        )


def test_two_nodes_measure_the_same_parts(tmp_path, crawl, steps):  # noqa: F811
    pytest.importorskip("ray")
    from functools import partial

    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        paths = list(map(str, crawl))
        opened = partial(open_sources, paths)
        curate(opened(), steps(RULES), tmp_path / "ray", ray=cluster.address, open_source=opened)
        assert len({node["NodeID"] for node in ray.nodes() if node["Alive"]}) == 2
    finally:
        ray.shutdown()
        cluster.shutdown()
    curate(opened(), steps(RULES), tmp_path / "here")
    assert table(tmp_path / "ray") == table(tmp_path / "here")
    parts = [{path.name: path.read_bytes() for path in (tmp_path / name / ".curate/measures").iterdir()}
             for name in ("ray", "here")]  # fmt: skip
    assert parts[0] == parts[1]
