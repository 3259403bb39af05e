"""Installation: `pip install .`, or `pip install -e .` to work on it.

Extras: `[dev]` for tests and lint, others for what docs/ says.

GPU: first install Paddle's GPU build with the command on its install page, then `pip install -e ".[gpu]"`.
GPU builds of 3.x come from Paddle's own index only; the default one stops at 2.6.2, so that without the first
step the extra ends in an error, not in an old Paddle.
"""

import re
import shutil
import sysconfig
from importlib.metadata import distributions
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
MILVUS = ["pymilvus==2.6.17", "milvus-lite>=3.2,<4"]
ONNX = ["onnxruntime>=1.19", "ml_dtypes==0.5.4"]  # the latter for 8-bit weights; newer ones need NumPy 2
DOCS = ["mkdocs-material>=9.5,<10", "mkdocstrings[python]>=0.26,<2"]
GPU_BUILD = "paddlepaddle-gpu>=3.3,<3.4"


def requirements():
    """The lines of requirements.txt; the GPU build in place of the CPU one where it is installed.

    Both unpack into the same folder: installing the CPU build next to the GPU build would overwrite it.
    """
    lines = [line.split("#")[0].strip() for line in (HERE / "requirements.txt").read_text().splitlines()]
    has_gpu_build = any(distributions(name="paddlepaddle-gpu", path=[sysconfig.get_path("purelib")]))
    if has_gpu_build:
        lines = [GPU_BUILD if line.startswith("paddlepaddle==") else line for line in lines]
    return [line for line in lines if line]


class BuildWithConfigurations(build_py):
    """Puts the configurations into the package, where `-c configs/...` finds them without a checkout."""

    def run(self):
        super().run()
        if not self.editable_mode:
            shutil.copytree(HERE / "configs", Path(self.build_lib) / "ernie_vil2" / "configs", dirs_exist_ok=True)


setup(
    name="ernie_vil2",
    version=re.search(r'__version__ = "(.+)"', (HERE / "ernie_vil2/__init__.py").read_text()).group(1),
    description="Multi-view contrastive image-text pretraining, retrieval and search on PaddlePaddle",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(include=["ernie_vil2", "ernie_vil2.*"]),
    package_data={"": ["py.typed", "vocab*", "templates/*", "page/*"]},
    cmdclass={"build_py": BuildWithConfigurations},
    entry_points={"console_scripts": ["ernie-vil2 = ernie_vil2.cli:main"]},
    python_requires=">=3.11,<3.12",
    install_requires=requirements(),
    extras_require={
        "gpu": [GPU_BUILD],
        "lmdb": ["lmdb>=1.4"],
        "milvus": MILVUS,
        "onnx": ONNX,
        "icons": ["resvg-py==0.5.0"],
        "docs": DOCS,
        "dev": [
            "lmdb>=1.4",
            "pytest>=8,<10",
            "pytest-xdist>=3.5,<4",
            "hypothesis>=6.100,<7",
            "ruff>=0.17,<0.18",
            "import-linter>=2,<3",
            "wheel>=0.40",
            "httpx>=0.27",
            "eccv_caption==0.1.0",
            *MILVUS,
            *ONNX,
            *DOCS,
        ],  # fmt: skip
    },
)
