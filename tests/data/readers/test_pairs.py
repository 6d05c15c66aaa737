"""Plain pairs: CSV, TSV, JSONL, data set objects and Parquet."""

import io
import pickle
import sys
from dataclasses import dataclass

import pytest
from PIL import Image

from fgclip2.data.readers import Columns, from_dataset, read_pairs
from fgclip2.data.records import InvalidRecordError, open_record_image
from tests.data.samples import write_images, write_lines


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def captions(dataset):
    return [(record.short_caption, record.long_caption, record.language) for record in dataset]


def test_csv_is_quoted(tmp_path, images):
    text = 'image,caption\n0.png,"a cat, black"\n1.png,"说""你好""的猫\n在两行"\n\n2.png,dog\n'
    dataset = read_pairs(write(tmp_path / "a.csv", text), images)
    assert captions(dataset) == [
        ("a cat, black", None, "en"),
        ('说"你好"的猫\n在两行', None, "zh"),
        ("dog", None, "en"),
    ]
    assert [dataset.source(index).rpartition(":")[2] for index in range(3)] == ["2", "3", "6"]
    assert dataset[1].image == str(images / "1.png")
    assert dataset.languages.tolist() == [0, 1, 0]
    assert captions(pickle.loads(pickle.dumps(dataset))) == captions(dataset)


def test_tsv_is_not_quoted(tmp_path, images):
    dataset = read_pairs(write(tmp_path / "a.tsv", 'image\tcaption\n0.png\t"Stop" says the sign\n1.png\t"停'), images)
    assert captions(dataset) == [('"Stop" says the sign', None, "en"), ('"停', None, "zh")]


def test_which_caption_is_which(tmp_path, images):
    """`caption` is the long one where there is a `short_caption`, as in FineHARD."""
    rows = [
        {"image": "0.png", "caption": "猫"},
        {"image": "0.png", "short_caption": "猫", "caption": "一只黑猫坐着"},
        {"image": "0.png", "short_caption": "cat", "long_caption": "a black cat", "caption": "unused"},
        {"image": "0.png", "long_caption": "a black cat"},
        {"image": "0.png", "short_caption": None, "caption": "猫"},
    ]
    assert captions(read_pairs(write_lines(tmp_path / "a.jsonl", rows), images)) == [
        ("猫", None, "zh"),
        ("猫", "一只黑猫坐着", "zh"),
        ("cat", "a black cat", "en"),
        (None, "a black cat", "en"),
        ("猫", None, "zh"),
    ]


def test_columns_and_languages_by_option(tmp_path, images):
    text = "路径,描述,长,语言,language\n0.png,OK,,zh,en\n1.png,,an apple,en,zh\n2.png,香蕉,,,\n"
    path = write(tmp_path / "图文.csv", text)
    columns = Columns("路径", "描述", "长", "语言")
    dataset = read_pairs(path, images, columns)
    assert captions(dataset) == [("OK", None, "zh"), (None, "an apple", "en"), ("香蕉", None, "zh")]
    assert dataset.languages.tolist() == [1, 0, 1]
    assert read_pairs(path, images, columns, language="en").languages.tolist() == [0, 0, 0]
    assert read_pairs(path, images, Columns("路径", "描述", "长")).languages.tolist() == [0, 1, 1]


def test_images_lie_beside_the_file_by_default(tmp_path):
    write_images(tmp_path, 1)
    record = read_pairs(write(tmp_path / "a.csv", "image,caption\n0.png,猫\n"))[0]
    assert open_record_image(record).size == (8, 6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,caption\n0.png,猫,x\n", r"a\.csv:2: the record is malformed \(3 cells in place of 2"),
        ("image,caption\n0.png\n", r"a\.csv:2: the record is malformed \(1 cells in place of 2"),
        ('image,caption\n0.png,"猫\n', r"a\.csv:2: the record is malformed \(unclosed quote\); it must be .*in quotes"),
        ('image,caption\n0.png,"猫"x\n', r"a\.csv:2: the record is malformed \(',' expected after"),
        (
            "image,caption\n0.png,\n",
            r"a\.csv:2: caption or long_caption is missing; it must be a text, in at least one",
        ),
        ("image,caption\n0.png, \n", r"a\.csv:2: caption is ' '; it must be a text"),
        ("image,caption\n,猫\n", r"a\.csv:2: image is missing; it must be a path or an image"),
        ("image,caption\n../0.png,猫\n", r"a\.csv:2: image is '\.\./0\.png'; it must be a path relative"),
        ("image,caption,language\n0.png,猫,cn\n", r"a\.csv:2: language is 'cn'; it must be en or zh"),
    ],
)
def test_wrong_rows(tmp_path, images, text, message):
    rows = text + "1.png,dog" + ",en" * text.startswith("image,caption,") + "\n"
    dataset = read_pairs(write(tmp_path / "a.csv", rows), images)
    with pytest.raises(InvalidRecordError, match=message):
        dataset[0]
    assert len(dataset) == 2
    assert dataset[1].short_caption == "dog"


@pytest.mark.parametrize(
    "rows",
    [
        ['0.png,"一只猫', "1.png,a dog", "2.png,狗", '3.png,"a cat, a dog"', "4.png,猫"],  # a quote later
        ['0.png,"一只猫', "1.png,a dog", "2.png,狗"],  # none
        ['0.png,"一只猫', '1.png,"a dog', "2.png,狗"],  # two in turn
        ['0.png,"一只猫', *(f"{number}.png,狗" for number in range(1, 20_000))],  # far more than one cell may hold
    ],
)
def test_an_unclosed_quote_takes_no_other_row_with_it(tmp_path, images, rows):
    dataset = read_pairs(write(tmp_path / "a.csv", "\n".join(["image,caption", *rows]) + "\n"), images)
    assert len(dataset) == len(rows)
    unclosed = [number for number, row in enumerate(rows) if row.count('"') == 1]
    for number in range(len(rows)):
        assert dataset.source(number).endswith(f"a.csv:{number + 2}")
        if number in unclosed:
            message = rf"a\.csv:{number + 2}: the record is malformed \(unclosed quote\); it must be .* in quotes"
            with pytest.raises(InvalidRecordError, match=message):
                dataset[number]
        else:
            assert dataset[number].short_caption == rows[number].split(",", 1)[1].strip('"')


def test_cells_of_several_lines_stay_whole(tmp_path, images):
    rows = 'image,caption\n0.png,"一只猫\n""和""狗"\n1.png,"three\n\nlines"\n2.png,"open\n3.png,狗\n4.png,"a\nb"\n'
    dataset = read_pairs(write(tmp_path / "a.csv", rows), images)
    assert [dataset.source(number).rpartition(":")[2] for number in range(5)] == ["2", "4", "7", "8", "9"]
    texts = [dataset[number].short_caption for number in (0, 1, 3, 4)]
    assert texts == ['一只猫\n"和"狗', "three\n\nlines", "狗", "a\nb"]


def test_tsv_says_nothing_of_quotes(tmp_path, images):
    dataset = read_pairs(write(tmp_path / "a.tsv", 'image\tcaption\n0.png\t"猫\tx\n1.png\t"dog\n'), images)
    with pytest.raises(InvalidRecordError, match=r"\(3 cells in place of 2\); it must be .* as the header has$"):
        dataset[0]
    assert dataset[1].short_caption == '"dog'


def test_other_encodings_are_told(tmp_path, images):
    path = tmp_path / "a.csv"
    path.write_bytes("image,caption\n0.png,黑猫\n1.png,dog\n".encode("gbk"))
    dataset = read_pairs(path, images)
    with pytest.raises(InvalidRecordError, match=r"a\.csv:2: the record is malformed \('utf-8' codec.*well-formed UTF"):
        dataset[0]
    assert dataset[1].short_caption == "dog"
    path.write_bytes("图,文\n0.png,黑猫\n".encode("gbk"))
    with pytest.raises(ValueError, match=r"a\.csv:1: the header must be names of columns in UTF-8"):
        read_pairs(path, images)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'filepath,title\n0.png,"一只猫, 黑色"\n1.png,a dog\n'),
        ("b.csv", 'filepath\ttitle\n0.png\t"一只猫, 黑色"\n1.png\ta dog\n'),  # pandas' to_csv(sep="\t")
        ("c.tsv", "filepath\ttitle\n0.png\t一只猫, 黑色\n1.png\ta dog\n"),
        ("d.jsonl", '{"filepath": "0.png", "title": "一只猫, 黑色"}\n{"filepath": "1.png", "title": "a dog"}\n'),
    ],
)
def test_tables_of_open_clip(tmp_path, images, name, text):
    dataset = read_pairs(write(tmp_path / name, text), images)
    assert captions(dataset) == [("一只猫, 黑色", None, "zh"), ("a dog", None, "en")]
    assert dataset.languages.tolist() == [1, 0]
    assert dataset[1].image == str(images / "1.png")


def test_own_names_win_over_those_of_open_clip(tmp_path, images):
    """A title beside captions is something else, and stays unread even where a caption is missing."""
    text = "image,caption,filepath,title\n0.png,猫,x.png,Untitled\n1.png,,x.png,Untitled\n"
    dataset = read_pairs(write(tmp_path / "a.csv", text), images)
    assert (dataset[0].image, dataset[0].short_caption) == (str(images / "0.png"), "猫")
    with pytest.raises(InvalidRecordError, match="caption or long_caption is missing"):
        dataset[1]
    objects = from_dataset(FakeDataset([{"filepath": str(images / "0.png"), "title": "猫"}]))
    assert (objects[0].image, objects[0].short_caption) == (str(images / "0.png"), "猫")


@pytest.mark.parametrize(
    ("header", "columns", "message"),
    [
        ("path,caption", Columns(), "the header has no column 'image'; its columns are path, caption"),
        ("image,caption", Columns(short_caption="描述"), "has no column '描述'; its columns are image, caption"),
        ("image,text", Columns(), "no column of captions; name one of: image, text"),
        ("image,caption,caption", Columns(), "names of columns, none of them twice"),
        ("", Columns(), "names of columns, none of them twice"),
    ],
)
def test_wrong_columns(tmp_path, images, header, columns, message):
    with pytest.raises(ValueError, match=message):
        read_pairs(write(tmp_path / "a.csv", f"{header}\n0.png,猫\n"), images, columns)


def encoded() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(buffer, "PNG")
    return buffer.getvalue()


@dataclass
class FakeDataset:
    """The part of `datasets.Dataset` that is used, so that the default tests need no `datasets`."""

    rows: list
    features: dict | None = None

    @property
    def column_names(self):
        return list(self.rows[0])

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return {name: [row[name] for row in self.rows[index]] for name in self.column_names}
        return self.rows[index]

    def select_columns(self, names):
        return FakeDataset([{name: row[name] for name in names} for row in self.rows])


def test_data_set_objects(images):
    rows = [
        {"image": str(images / "0.png"), "caption": "猫"},
        {"image": encoded(), "caption": "cat"},
        {"image": {"bytes": encoded(), "path": "x.png"}, "caption": "狗"},
        {"image": {"bytes": None, "path": str(images / "1.png")}, "caption": "dog"},
        {"image": Image.new("L", (8, 6)), "caption": "灰"},
    ]
    dataset = from_dataset(FakeDataset(rows), name="我的")
    assert [record.language for record in dataset] == ["zh", "en", "zh", "en", "zh"]
    assert dataset.languages.tolist() == [1, 0, 1, 0, 1]
    assert {open_record_image(record).size for record in dataset} == {(8, 6)}
    assert dataset[4].source == "我的:5"
    assert from_dataset(FakeDataset(rows), language="en").languages.tolist() == [0] * 5


def test_paths_in_data_set_objects_stay_in_a_given_folder(images):
    dataset = from_dataset(FakeDataset([{"image": {"bytes": None, "path": "/etc/passwd"}, "caption": "猫"}]), images)
    with pytest.raises(InvalidRecordError, match=r"dataset:1: image is '/etc/passwd'; it must be a path relative"):
        dataset[0]


@pytest.mark.parametrize("image", [b"", None, 3, {"bytes": None, "path": None}, {"a": 1}])
def test_wrong_images_in_data_set_objects(image):
    with pytest.raises(InvalidRecordError, match=r"dataset:1: image is .*; it must be (a path or|an encoded) "):
        from_dataset(FakeDataset([{"image": image, "caption": "猫"}]))[0]


def test_no_data_set_objects():
    with pytest.raises(ValueError, match=r"dataset must be a datasets\.Dataset, with a length, got list"):
        from_dataset([{"image": "0.png", "caption": "猫"}])
    with pytest.raises(ValueError, match="no column 'image'"):
        from_dataset(FakeDataset([{"path": "0.png", "caption": "猫"}]))


def test_parquet_needs_datasets(tmp_path, images, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r'pip install "fgclip2\[train\]"'):
        read_pairs(tmp_path / "a.parquet", images)


def test_parquet_and_real_data_set_objects(tmp_path, images, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = {"image": ["0.png", "1.png"], "caption": ["猫", "cat"]}
    datasets.Dataset.from_dict(rows).to_parquet(str(tmp_path / "a.parquet"))
    dataset = read_pairs(tmp_path / "a.parquet", images)
    assert captions(dataset) == [("猫", None, "zh"), ("cat", None, "en")]
    assert dataset[1].source == f"{tmp_path / 'a.parquet'}:2"
    broken = str(tmp_path / "坏.png")
    write(tmp_path / "坏.png", "no image")
    decoded = datasets.Dataset.from_dict({**rows, "image": [str(images / "0.png"), broken]})
    decoded = from_dataset(decoded.cast_column("image", datasets.Image()))
    assert open_record_image(decoded[0]).size == (8, 6)
    with pytest.raises(ValueError, match="dataset:2"):  # of the image alone: the record can be read
        open_record_image(decoded[1])
    assert captions(pickle.loads(pickle.dumps(dataset))) == captions(dataset)


def test_rows_may_state_the_size_of_their_image(tmp_path, images):
    rows = "image,caption,height,width\n0.png,一只猫,480,640\n1.png,a dog,48 px,640\n2.png,一只狗,,\n"
    dataset = read_pairs(write(tmp_path / "a.csv", rows), images)
    assert [record.image_size for record in dataset] == [(480, 640), None, None]
    assert dataset.image_sizes.tolist() == [[480, 640], [0, 0], [0, 0]]
