"""Folders and tables of classes, and files of their names and templates, that are damaged or contradict themselves."""

from ernie_vil2.data.readers.labelled import open_labelled, read_list
from ernie_vil2.data.samples import Reason
from ernie_vil2.evaluation.classification import read_templates
from tests.hostile.bad_input.case import GOOD, Case, file

ROWS = "a.png,cat\nb.png,dog\n"


def classes(input, content, **result):
    """A folder with these files; names are in `names.txt`, where there are some."""

    def make(folder):
        for name, data in content.items():
            (folder / "set" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "set" / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        return folder / "set"

    def opened(location):
        table, names = f"{location}/a.csv", {"zh": f"{location}/names.txt"} if "names.txt" in content else None
        return open_labelled([table if "a.csv" in content else location], names)

    return Case(input, make, opened=opened, **result)


def table(input, rows, names=None, columns="image,label", **result):
    """A table of images a.png to c.png."""
    files = {"a.csv": f"{columns}\n{ROWS}{rows}", **{f"{name}.png": GOOD for name in "abc"}}
    return classes(input, files | ({"names.txt": names} if names else {}), **result)


def folders(input, names=None, extra=(), **result):
    """A folder for cats and one for dogs."""
    files = {"cat/a.png": GOOD, "dog/b.png": GOOD, **dict(extra)}
    return classes(input, files | ({"names.txt": names} if names else {}), **result)


def listed(input, name, content, opened, stopped):
    """A file of names or templates."""
    return Case(input, file(name, content), stopped=stopped, opened=opened)


def templates(location):
    return read_templates("zh", str(location))


EMPTY = "classes without an image"
CASES = [
    folders("class folder without an image", extra={"bird/note.txt": "later"}, used=2, remark=EMPTY,
            note="it can be answered, and counts in no mean"),
    table("name of a class that no row has", "", "cat\t猫\ndog\t狗\nbird\t鸟\n", used=2, remark=EMPTY,
          note="likewise"),
    folders("image outside the class folders", extra={"c.png": GOOD}, used=2, skipped={Reason.NO_LABEL: 1}),
    table("row without a label", "c.png,\n", used=2, skipped={Reason.NO_LABEL: 1}),
    table("label that is not a class", "c.png,bird\n", "cat\t猫\ndog\t狗\n", used=2,
          skipped={Reason.UNKNOWN_LABEL: 1}),
    table("image in two rows, of one class or of two", "a.png,cat\nb.png,cat\n", used=2,
          skipped={Reason.REPEATED_IMAGE: 2}, note="the first row is kept; `--check` also finds equal images"),
    table("two classes of one name", "", "cat\t猫\ndog\t猫\n", used=2, remark="names of several classes"),
    table("table without a column label", "", columns="image,species",
          stopped="nothing has a label; say which column or field is the class"),
    classes("folder of a single class", {"cat/a.png": GOOD}, stopped="one class alone (cat) is not a question"),
    folders("fewer names than classes", "猫\n", stopped="1 name for 2 classes"),
    listed("class without a name", "n.txt", "cat\t猫\ndog\t\n", read_list, "class dog has no name; write it"),
    listed("empty line among names", "n.txt", "猫\n\n狗\n", read_list, "entry 2 is empty; write it"),
    listed("class that is named twice", "n.txt", "cat\t猫\ncat\t狗\n", read_list, "line 2: cat is there twice"),
    listed("JSON of several lists of names", "n.json", '{"a": ["x"], "b": ["y"]}', read_list,
           "name one of its lists as n.json@NAME"),
    listed("file without templates", "t.txt", "\n", templates, "nothing in it"),
    listed("template without a slot", "t.txt", "{}\n一只猫\n", templates,
           "template '一只猫' has no slot; put {} where the name belongs"),
]  # fmt: skip
