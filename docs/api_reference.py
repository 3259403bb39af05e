"""Pages of the API reference, one per package, that `make docs` adds to those of this folder (a hook of mkdocs)."""

import ast
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]


def on_files(files, config):
    """Adds a page for each package, with its modules; one for the modules at the top; and an index of all names."""
    pages: dict[str, list[Path]] = {}
    for path in sorted((ROOT / "ernie_vil2").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        pages.setdefault(".".join(parts[:2]) if len(parts) > 2 else "ernie_vil2", []).append(path)
    for package, paths in pages.items():
        text = f"# {package}\n\n" + "".join(f"::: {name_of(path)}\n\n" for path in paths)
        files.append(File.generated(config, f"reference/{package}.md", content=text))
    index = ["# API reference", "", "Public names by package, with the first sentence of their docstrings.", ""]
    for package, paths in pages.items():
        names = [row for path in paths for row in described(path, package)]
        index += [f"## [{package}]({package}.md)", ""]
        index += ["| name | what it does |", "|---|---|", *names, ""] if names else []
    files.append(File.generated(config, "reference/index.md", content="\n".join(index)))
    return files


def name_of(path):
    """The import path of a module's file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def described(path, package):
    """A row for each public class and function of a module that has a docstring."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            sentence = (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ").replace("|", "\\|")
            module = name_of(path)
            inner = module.removeprefix(f"{package}.") if module != package else ""
            label = f"{inner}.{node.name}" if inner else node.name
            if sentence:
                yield f"| [`{label}`]({package}.md#{module}.{node.name}) | {sentence.split('. ')[0].rstrip('.')} |"
