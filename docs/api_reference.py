"""Pages of the API reference, one per package, that `make docs` adds to those of this folder (a hook of mkdocs)."""

from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]


def on_files(files, config):
    """Adds a page for each package, with its modules; one for the modules at the top."""
    pages: dict[str, list[str]] = {}
    for path in sorted((ROOT / "ernie_vil2").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        pages.setdefault(".".join(parts[:2]) if len(parts) > 2 else "ernie_vil2", []).append(name)
    for package, modules in pages.items():
        text = f"# {package}\n\n" + "".join(f"::: {module}\n\n" for module in modules)
        files.append(File.generated(config, f"reference/{package}.md", content=text))
    index = "# Reference\n\n" + "".join(f"- [{package}]({package}.md)\n" for package in pages)
    files.append(File.generated(config, "reference/index.md", content=index))
    return files
