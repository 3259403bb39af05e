"""Users' own tables in various encodings, delimiters, headers and paths."""

import csv
import io
import pickle
import re
import shlex
import tracemalloc
import warnings
import zipfile
from datetime import datetime, timedelta
from pathlib import Path

import openpyxl
import pytest

from ernie_vil2.cli.arguments import columns as columns_option
from ernie_vil2.data.readers import open_benchmark, open_sources
from ernie_vil2.data.readers.columns import rename_columns
from ernie_vil2.data.readers.spreadsheets import CsvTable, XlsxTable, read_sheet
from ernie_vil2.data.readers.tables import TableSource, open_table
from tests.support.published_files import make_image, read_all

ROWS = [("a.png", "一只猫，坐着", "00123", 3.5), ("b.png", "红色; 的“车”", "00124", 4)]
HEADER = ("图片", "标题", "货号", "价格")


def format_csv(rows, delimiter=","):
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    return text.getvalue()


@pytest.fixture
def shop(tmp_path):
    """Return a folder with the images of the rows."""
    for number, name in enumerate(("a.png", "b.png")):
        (tmp_path / name).write_bytes(make_image(number))
    return tmp_path


def check_rows(source):
    assert [source[row].caption("zh") for row in range(2)] == ["一只猫，坐着", "红色; 的“车”"]
    assert [source[row].image for row in range(2)] == [make_image(0), make_image(1)]
    assert [source[row].fields["货号"] for row in range(2)] == ["00123", "00124"]
    assert [source[row].fields["价格"] for row in range(2)] == [3.5, 4]


@pytest.mark.parametrize(
    ("name", "encoding", "delimiter"),
    [
        ("train.csv", "utf-8", "\t"),
        ("train.csv", "utf-8-sig", ","),
        ("train.csv", "gb18030", ";"),
        ("train.tsv", "utf-8", "\t"),
    ],
)
def test_csv_is_read_in_the_formats_of_excel(shop, name, encoding, delimiter):
    (shop / name).write_bytes(format_csv([HEADER, *ROWS], delimiter).encode(encoding))
    check_rows(open_sources([str(shop)]))
    check_rows(pickle.loads(pickle.dumps(open_sources([str(shop / name)]).shards[0])))  # noqa: S301  -- pickled here


def test_single_row_tells_the_encoding(shop):
    path = shop / "train.csv"
    path.write_bytes("image,caption_zh\r\na.png,两只狗在草地上\r\n".encode("gb18030"))
    assert open_sources([str(path)])[0].captions == {"zh": "两只狗在草地上"}


@pytest.mark.parametrize("name", ["train.csv", "train.tsv"])
@pytest.mark.parametrize(
    ("line", "encoding", "delimiter"),
    [("sep=;", "utf-8-sig", ";"), ("sep=|", "utf-8", "|"), ('"sep=\t"', "gb18030", "\t"), ("SEP=,", "utf-8", ",")],
)
def test_line_that_tells_excel_the_delimiter_holds_no_headers(shop, name, line, encoding, delimiter):
    text = f"{line}\r\n{format_csv([HEADER, *ROWS], delimiter)}"
    (shop / name).write_bytes(text.encode(encoding))
    check_rows(open_sources([str(shop)]))
    assert CsvTable(shop / name).describe_row(1) == f"{name}:4"


@pytest.mark.parametrize("layout", ["table", "texts"])
def test_tables_of_one_name_have_to_be_told_apart(shop, layout):
    for name in ("train.csv", "train.tsv", "test.csv"):
        (shop / name).write_text(f"image\tcaption_en\tcaption_zh\na.png\t{name}\t猫\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"no split train; choose a split of test, train\.csv, train\.tsv"):
        open_sources([str(shop)], layout=layout)
    for split in ("train.csv", "train.tsv"):
        assert open_sources([str(shop)], layout=layout, split=split)[0].caption("en") == split


def test_headers_may_hold_line_ends_and_follow_blank_lines(shop):
    rows = [("标题\n(中, 英)", "图片"), ("一只猫", "a.png")]
    path = shop / "train.csv"
    path.write_text("\n\r\n" + format_csv(rows, ";"), encoding="utf-8-sig", newline="")
    (row,) = read_all(open_sources([str(shop)], columns={"caption_zh": rows[0][0]}))
    assert (row.image_name, row.captions) == ("a.png", {"zh": "一只猫"})
    assert CsvTable(path).describe_row(0) == "train.csv:5"


@pytest.mark.parametrize("name", ["train.csv", "train.xlsx"])
def test_errors_of_formulas_are_missing_values(shop, name):
    rows = [("a.png", "#N/A", 3.5), ("#VALUE!", "猫", 4), ("a.png", "#1 猫", "#DIV/0!"), ("b.png", "#REF!", 1)]
    if name == "train.csv":
        (shop / name).write_text(format_csv([("图片", "标题", "价格"), *rows]), encoding="utf-8")
    else:
        book = openpyxl.Workbook()
        for row in (("图片", "标题", "价格"), *rows):
            book.active.append(row)
        book.save(shop / name)
    benchmark = open_benchmark([str(shop)])
    assert [text.text for text in benchmark.texts] == ["#1 猫"]
    assert benchmark.entry_report.counts == {"no image": 1, "no caption": 2}
    table = open_table(shop / name)
    assert [table.read_row(row).get("价格") for row in range(4)] == [3.5, 4, None, 1]


def test_workbook_is_read_like_a_csv(shop):
    book = openpyxl.Workbook()
    book.active.append([None, None])  # a blank row above
    for row in (HEADER, *ROWS):
        book.active.append(row)
    book.active.append([None] * 4)
    book.save(shop / "train.xlsx")
    check_rows(open_sources([str(shop)]))
    table = XlsxTable(shop / "train.xlsx")
    assert [table.describe_row(row) for row in range(len(table))] == ["train.xlsx:3", "train.xlsx:4"]
    book.active["D4"] = "3.50"
    book.save(shop / "train.xlsx")
    source = TableSource(shop / "train.xlsx")
    assert [source[row].fields["价格"] for row in range(2)] == ["3.5", "3.50"]


def test_title_merged_cells_and_dates_of_a_workbook_are_read(shop):
    book = openpyxl.Workbook()
    sheet, date = book.active, datetime(2024, 3, 5)
    for row in (["2024 年商品表"], ["图片", "标题", "货号", "上架"], ["a.png", "猫", "A1", date],
                ["b.png", None, None, date + timedelta(hours=9)], ["a.png", "狗", None, None], ["b.png"]):  # fmt: skip
        sheet.append(row)
    for cells in ("A1:D1", "B3:B4", "C3:C5", "D3:E3"):
        sheet.merge_cells(cells)
    book.save(shop / "train.xlsx")
    table = XlsxTable(shop / "train.xlsx")
    rows = [table.read_row(index) for index in range(len(table))]
    assert [row.get("标题") for row in rows] == ["猫", "猫", "狗", None]  # a cell that is not merged stays empty
    assert [row.get("货号") for row in rows] == ["A1", "A1", "A1", None]
    assert [row.get("上架") for row in rows] == ["2024-03-05", "2024-03-05T09:00:00", None, None]


def test_only_cells_below_the_headers_of_a_workbook_count(shop):
    book = openpyxl.Workbook()
    for row in (HEADER, *ROWS):
        book.active.append(row)
    book.active["XFD20"] = "x"  # far outside the table
    written = io.BytesIO()
    book.save(written)
    # Some programs write that the sheet is a single cell.
    with zipfile.ZipFile(written) as old, zipfile.ZipFile(shop / "train.xlsx", "w") as new:
        for name in old.namelist():
            new.writestr(name, re.sub(rb'<dimension ref="[^"]*"', b'<dimension ref="A1"', old.read(name)))
    check_rows(open_sources([str(shop)]))
    assert len(XlsxTable(shop / "train.xlsx")) == 2


def test_workbooks_read_at_once_leave_no_filter_or_handle(shop):
    book = openpyxl.Workbook()
    for row in (HEADER, *ROWS):
        book.active.append(row)
    book.save(shop / "train.xlsx")
    handles = Path("/proc/self/fd")
    num_handles = len(list(handles.iterdir()))
    first, second = read_sheet(shop / "train.xlsx"), read_sheet(shop / "train.xlsx")
    assert next(first) == next(second)
    first.close()
    second.close()
    assert len(list(handles.iterdir())) == num_handles
    assert ("ignore", None, Warning, None, 0) not in warnings.filters


def test_encoding_is_an_option_and_utf_16_is_refused(shop):
    (shop / "train.csv").write_bytes(format_csv([("image", "caption_zh"), ("a.png", "紅色的車")]).encode("big5"))
    assert open_sources([str(shop)], encoding="big5")[0].caption("zh") == "紅色的車"
    with pytest.raises(ValueError, match="encoding klingon"):
        open_sources([str(shop)], encoding="klingon")
    (shop / "train.csv").write_bytes("图片,标题\na.png,猫\n".encode("utf-16"))
    with pytest.raises(ValueError, match="UTF-16"):
        open_sources([str(shop / "train.csv")])


@pytest.mark.parametrize("name", ["train.csv", "train.tsv"])
def test_tables_are_recognised_in_the_encoding_and_columns_named(shop, name):
    rows = [("圖片", "紅色的車"), ("a.png", "紅色")]
    (shop / name).write_bytes(format_csv(rows, "\t").encode("big5"))
    columns = {"caption_zh": "紅色的車"}
    for location in (shop, shop / name):
        assert open_sources([str(location)], encoding="big5", columns=columns)[0].caption("zh") == "紅色"
    (shop / name).rename(shop / "train.csv")
    with pytest.raises(ValueError, match="caption_zh=紅色的車"):
        open_sources([str(shop)], encoding="big5")


def test_error_shows_an_example_of_columns_that_works(shop):
    path = shop / "train.csv"
    path.write_text(format_csv([("my photo", "what it's", "货号", "价格"), *ROWS]), encoding="utf-8")
    for location in (shop, path):
        with pytest.raises(ValueError, match="columns here: my photo, what it's, 货号, 价格; ") as caught:
            open_sources([str(location)])
    option = str(caught.value).split(" --columns ")[1].removesuffix(" (Data.columns)")
    columns = columns_option(*shlex.split(option))
    assert columns == {"image": "my photo", "caption_zh": "what it's"}
    for location in (shop, path):
        check_rows(open_sources([str(location)], columns=columns))
    with pytest.raises(ValueError, match="no column 图 "):
        open_sources([str(path)], columns={"image": "图"})
    path.write_text(format_csv([row[:2] for row in ROWS]), encoding="utf-8")
    with pytest.raises(ValueError, match="the first line"):
        open_sources([str(path)])


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        (["image", "text", "title", "filename"], {}),  # columns with the expected names are not renamed
        (["img", "英文标题", "标题"], {"img": "image", "英文标题": "caption_en", "标题": "caption_zh"}),
        (["Image Path", " Title ", "ID"], {"Image Path": "image_path", " Title ": "caption"}),
        (["图片", "caption_en", "描述"], {"图片": "image", "描述": "caption_zh"}),
    ],
)
def test_headers_in_chinese_and_english_are_recognised(columns, names):
    assert rename_columns(columns, {}, "t.csv") == names


@pytest.mark.parametrize("name", ["train.csv", "train.tsv"])
def test_text_in_two_columns_of_one_name_is_refused(shop, name):
    path = shop / name
    rows = [("image", "caption_zh", "note", "caption_zh", "note"), ("a.png", "x", "", "y", "")]
    path.write_text(format_csv(rows, "\t"), encoding="utf-8")
    for location in (shop, path):
        with pytest.raises(ValueError, match="2 columns are called caption_zh"):
            open_sources([str(location)])


def test_scan_of_a_csv_takes_little_memory_per_row(tmp_path, monkeypatch):
    monkeypatch.setenv("ERNIE_VIL2_CACHE", str(tmp_path / "cache"))
    num_rows = 60_000
    (tmp_path / "t.csv").write_text("image,text\n" + "a.png,x\n" * num_rows)
    tracemalloc.start()
    table = CsvTable(tmp_path / "t.csv")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(table) == num_rows
    assert peak < 120 * num_rows  # of which the beginning of the file, which is read whole, takes the half


def test_error_on_a_lone_carriage_return_says_what_to_do(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"image,text\ra.png,x\r")  # as Excel for Mac may save it
    with pytest.raises(ValueError, match=r"t\.csv, after line 1: .*carriage return.*save it as CSV UTF-8"):
        CsvTable(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("header", "columns", "captions", "tags"),
    [
        ("image,note,caption", {"caption": "note"}, {"": "new"}, {}),
        ("image,note,caption", {"text": "note"}, {"": "new"}, {}),
        ("image,note,Caption", {"text": "note"}, {"": "new"}, {}),
        ("image,note,caption_zh", {"caption_zh": "note"}, {"zh": "new"}, {}),
        ("image,note,caption", {"tags": "note"}, {"": "old"}, {"": ("new",)}),
        (
            "image,note,tags_en",
            {"caption": "image", "tags_en": "note", "image": "tags_en"},
            {"": "a.png"},
            {"en": ("new",)},
        ),
    ],
)
def test_column_that_is_named_precedes_one_with_the_name(tmp_path, header, columns, captions, tags):
    (tmp_path / "t.csv").write_text(f"{header}\na.png,new,old\n")
    for name in ("a.png", "old"):
        (tmp_path / name).write_bytes(b"image")
    sample = TableSource(tmp_path / "t.csv", columns=columns)[0]
    assert (sample.captions, sample.tags) == (captions, tags)


def test_image_column_that_is_named_precedes_others(shop):
    (shop / "train.csv").write_text("image,photo,caption\nx.png,a.png,old\n")
    for name in ("image", "image_path", "file_name"):
        assert TableSource(shop / "train.csv", columns={name: "photo"})[0].image_name == "a.png"


def test_column_named_for_two_languages_is_refused():
    with pytest.raises(ValueError, match="column note cannot be both caption_zh and caption_en"):
        rename_columns(["image", "note"], {"caption_zh": "note", "caption_en": "note"}, "t.csv")


def test_table_of_very_many_columns_is_described(shop):
    headers = ["image", *(f"Caption_{number}" for number in range(4000)), "Title"]
    (shop / "train.csv").write_text(format_csv([headers, ["a.png", *headers[1:]]]), encoding="utf-8")
    sentences = TableSource(shop / "train.csv").describe_choices()
    assert len(sentences) == 4000 and all("could be Title:" in sentence for sentence in sentences)


@pytest.mark.parametrize(
    ("header", "columns"),
    [("图片链接,商品名称", {"image": "图片链接"}), ("image,标题", None), ("Image URL,标题", None)],
)
def test_error_on_a_column_of_addresses_names_img2dataset(shop, header, columns):
    (shop / "train.csv").write_text(f"{header}\nhttps://example.com/a.png,猫\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"column {header.split(',')[0]}.*img2dataset") as error:
        open_sources([str(shop / "train.csv")], columns=columns)
    command = shlex.split(str(error.value).partition(": ")[2].partition("; its folder")[0])
    assert command[command.index("--url_col") + 1] == header.split(",")[0]


@pytest.fixture
def table(shop):
    """Return the path of a table in a folder next to the images."""
    (shop / "tables").mkdir()
    return shop / "tables" / "train.csv"


def test_path_through_a_parent_is_outside_the_images_folder(shop, table):
    table.write_text(f"image,text\n{shop}/tables/../a.png,x\nb.png,y\n", encoding="utf-8")
    assert open_benchmark(table, images=shop).entry_report.counts == {"image outside its folder": 1}


def test_blank_before_a_path_does_not_lead_out_of_the_folder(shop, table):
    table.write_text(f"text,image\nx, {shop}/a.png\ny, ../b.png\nz, ..\\b.png\n", encoding="utf-8")
    problems = read_all(TableSource(table))
    assert [problem.rpartition(": ")[2] for problem in problems] == ["image outside its folder"] * 3
    first, *_ = read_all(TableSource(table, images=shop))
    assert (first.image_name, first.image) == ("a.png", make_image(0))


@pytest.mark.parametrize(
    ("folder", "suggestion"),
    [
        ("C:\\Users\\李雷\\photos\\", "C:/Users/李雷/photos"),
        ("\\\\nas\\my shop\\photos\\", "'/nas/my shop/photos'"),
        ("../photos/", "SHOP/photos"),
        ("SHOP/photos/", "SHOP/photos"),
    ],
)
def test_paths_of_other_machines_are_read_with_images_option(shop, table, folder, suggestion):
    (shop / "photos").mkdir()
    for name in ("a.png", "b.png"):
        (shop / name).rename(shop / "photos" / name)
    folder, suggestion = folder.replace("SHOP", str(shop)), suggestion.replace("SHOP", str(shop))
    table.write_text(format_csv([HEADER, *((folder + row[0], *row[1:]) for row in ROWS)]), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"a\.png.*--images {suggestion} \(Data.images\)"):
        open_sources([str(table)])
    source = open_sources([str(table)], images=shop / "photos")
    check_rows(source)
    assert source[0].image_name == "a.png"
    with pytest.raises(ValueError, match="name the folder|absolute paths"):
        open_sources([str(table)], images=table.parent)


def test_error_names_where_missing_images_were_looked_for(shop, table):
    table.write_text(format_csv([HEADER, *ROWS]), encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=f"a.png; looked in {table.parent}, {table.parent}/images"):
        open_sources([str(table)])
    check_rows(open_sources([str(table)], images=shop))
    (table.parent / "photos").mkdir()
    (shop / "a.png").rename(table.parent / "photos" / "a.png")
    with pytest.raises(FileNotFoundError, match=f"--images {table.parent}/photos"):
        open_sources([str(table)])


def test_backslashes_and_blanks_in_paths_are_understood(shop):
    (shop / "images").mkdir()
    (shop / "images" / "c.png").write_bytes(make_image(3))
    (shop / "train.csv").write_text("image,text\nimages\\c.png,x\n a.png ,y\n..\\..\\a.png,z\n", encoding="utf-8")
    first, second, problem = read_all(open_sources([str(shop / "train.csv")]))
    assert (first.image_name, first.image) == ("images/c.png", make_image(3))
    assert (second.image_name, second.image) == (" a.png ", make_image(0))
    assert "image outside its folder" in problem
