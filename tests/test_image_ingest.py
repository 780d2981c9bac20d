"""Images and labels in raw files become stores: exactly their values, or a refusal."""

import gzip
import json
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ooc_train import (
    InvalidImages,
    InvalidTable,
    LogisticModel,
    ingest,
    ingest_images,
    open_store,
    predict,
    train,
)
from ooc_train.cli import app
from ooc_train.errors import CeilingExceeded, OutputExists, TableNotFound
from ooc_train.images.image_folders import PIXEL_BYTES
from ooc_train.images.open_images import open_images
from ooc_train.memory.processes import measure, reset_peak
from tests.test_writer import contents, rows_of

RANDOM = np.random.default_rng(0)
N = 1000
IMAGES = RANDOM.integers(0, 256, (N, 5, 4), np.uint8)
LABELS = RANDOM.integers(0, 10, N).astype(np.uint8)
CODES = {"u1": 8, "i1": 9, ">i2": 11, ">i4": 12, ">f4": 13, ">f8": 14}
FASHION = Path("/usr/share/datasets/fashion-mnist")


def idx(values, dtype="u1", shape=None):
    """Return values as the bytes of IDX; `shape` is what the header says."""
    shape = np.shape(values) if shape is None else shape
    head = struct.pack(f">HBB{len(shape)}I", 0, CODES[dtype], len(shape), *shape)
    return head + np.asarray(values, dtype).tobytes()


def placed(folder, **files):
    """Write files, "X" for X.idx and so on, and return their paths."""
    paths = []
    for name, data in files.items():
        paths.append(folder / f"{name}.idx")
        paths[-1].write_bytes(data)
    return paths


@pytest.fixture
def pair(tmp_path):
    """Images and labels as IDX."""
    return placed(tmp_path, X=idx(IMAGES), y=idx(LABELS))


def rows(store):
    """Return X and the labels of a store in the order of the files."""
    order = np.argsort(store.read("row_id"))
    y = store.read("y")
    if store.classes is not None:
        y = np.asarray(store.classes)[y]
    return store.read("X")[order], y[order]


def require_rows(store, X=IMAGES, y=LABELS):
    found, labels = rows(store)
    assert found.dtype == X.dtype.newbyteorder("<")
    assert np.array_equal(found, X)
    assert np.array_equal(labels, y)


def refused(message, *arguments, error=InvalidImages, most=48 * 2**20, **settings):
    """Require a refusal that costs little memory."""
    before = measure().current
    reset_peak()
    with pytest.raises(error, match=message):
        ingest_images(*arguments, **settings)
    assert measure().peak - before < most


@pytest.mark.parametrize("packed", [False, True])
def test_idx_becomes_a_store(tmp_path, packed):
    pack = gzip.compress if packed else bytes
    X, y = placed(tmp_path, X=pack(idx(IMAGES)), y=pack(idx(LABELS)))
    lines: list[str] = []
    made = ingest_images(X, tmp_path / "a.zarr", y, say=lines.append)
    store = made.store
    assert store.X.shape == IMAGES.shape
    assert (store.dtype.name, store.classes, store.shuffled) == ("uint8", tuple(range(10)), 0)
    assert store.class_counts == tuple(np.bincount(LABELS))
    assert not np.array_equal(store.read("row_id"), np.arange(N))
    require_rows(store)
    assert "1,000 images of 5 x 4 uint8: 19.5 KiB" in lines[0]
    assert made.memory.measured <= made.memory.projected <= made.memory.ceiling
    assert (made.test, made.notes) == (None, ())
    assert store.statistics is not None
    assert np.allclose(store.statistics.mean, IMAGES.mean(axis=0).ravel())


@pytest.mark.parametrize("dtype", list(CODES))
def test_types_of_idx(tmp_path, dtype):
    values = RANDOM.integers(0, 100, (50, 3, 2, 2)).astype(dtype)
    X, y = placed(tmp_path, X=idx(values, dtype), y=idx(LABELS[:50]))
    store = ingest_images(X, tmp_path / "a.zarr", y, shuffle=False).store
    assert np.array_equal(store.read("row_id"), np.arange(50))
    require_rows(store, values, LABELS[:50])


def test_test_rows_and_seeds(pair, tmp_path):
    X, y = pair
    made = ingest_images(X, tmp_path / "a.zarr", y, test_size=0.2, random_state=3)
    assert made.test is not None
    assert made.test.path == str(tmp_path / "a.test.zarr")
    assert (made.store.n_rows, made.test.n_rows) == (800, 200)
    assert made.store.classes == made.test.classes
    ids = [rows_of(store.row_id) for store in (made.store, made.test)]
    assert np.array_equal(np.sort(np.concatenate(ids)), np.arange(N))
    for store, numbers in zip((made.store, made.test), ids, strict=True):
        assert np.array_equal(store.read("X"), IMAGES[numbers])
    assert made.store.pair is not None
    other = ingest_images(X, tmp_path / "b.zarr", y, test_size=0.2, random_state=4)
    assert not np.array_equal(rows_of(other.store.row_id), ids[0])


@pytest.mark.usefixtures("one_id")
def test_the_ceiling_changes_no_byte(tmp_path):
    images = RANDOM.integers(0, 256, (60_000, 20, 10), np.uint8)
    np.save(tmp_path / "X.npy", images)
    np.save(tmp_path / "y.npy", np.arange(60_000) % 7)
    for ceiling in ("72MiB", "1GiB"):
        (tmp_path / ceiling).mkdir()
        made = ingest_images(
            tmp_path / "X.npy",
            tmp_path / ceiling / "a.zarr",
            tmp_path / "y.npy",
            test_size=0.1,
            memory_ceiling=ceiling,
        )
        assert made.memory.measured <= made.memory.projected <= made.memory.ceiling
    assert contents(tmp_path / "72MiB") == contents(tmp_path / "1GiB")
    refused(
        "its memory ceiling is 20 MiB",
        tmp_path / "X.npy",
        tmp_path / "b.zarr",
        tmp_path / "y.npy",
        memory_ceiling="20MiB",
        error=CeilingExceeded,
    )


@pytest.mark.slow
def test_many_times_the_ceiling(tmp_path):
    shape = (500_000, 28, 28)  # 374 MiB, packed to little
    with gzip.open(tmp_path / "X.gz", "wb", compresslevel=1) as file:
        file.write(idx(IMAGES[:0], shape=shape))
        block = np.tile(IMAGES.ravel(), 2 * 28 * 28)[: 500 * 28 * 28].tobytes()
        for _ in range(1000):
            file.write(block)
    (tmp_path / "y.idx").write_bytes(idx(np.arange(500_000) % 3))
    made = ingest_images(
        tmp_path / "X.gz", tmp_path / "a.zarr", tmp_path / "y.idx", memory_ceiling="80MiB"
    )
    assert made.memory.measured <= made.memory.projected <= made.memory.ceiling
    assert made.store.total_bytes > 4 * made.memory.ceiling


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_of_numpy(tmp_path, save):
    names = np.array(["shirt", "bag", "Ä boot"])[LABELS % 3]
    save(tmp_path / "a.npz", X=IMAGES, y=names, more=LABELS)
    store = ingest_images(tmp_path / "a.npz", tmp_path / "a.zarr").store
    assert store.classes == ("bag", "shirt", "Ä boot")
    require_rows(store, IMAGES, names)
    store = ingest_images(tmp_path / "a.npz", tmp_path / "b.zarr", y="more").store
    require_rows(store)
    np.save(tmp_path / "X.npy", IMAGES.astype(">f4") / 3)
    np.save(tmp_path / "y.npy", LABELS / 7)
    store = ingest_images(tmp_path / "X.npy", tmp_path / "c.zarr", tmp_path / "y.npy").store
    assert (store.classes, store.dtype) == (None, np.dtype("f4"))
    require_rows(store, IMAGES.astype("f4") / np.float32(3), LABELS / 7)
    np.save(tmp_path / "y.npy", LABELS > 4)
    store = ingest_images(tmp_path / "X.npy", tmp_path / "d.zarr", tmp_path / "y.npy").store
    assert store.classes == (False, True)


def test_images_without_labels_are_for_predictions(pair, tmp_path):
    X, y = pair
    made = ingest_images(X, tmp_path / "new.zarr", test_size=0.5)
    assert made.test is not None
    assert made.store.y is None
    assert made.notes == ("no labels were passed: the store has no y, and is for predictions",)
    fitted, _ = train(LogisticModel(scale=1 / 255), ingest_images(X, tmp_path / "a.zarr", y).store)
    for store in (made.store, made.test):
        expected = predict(fitted, IMAGES[store.read("row_id")])
        assert np.array_equal(predict(fitted, store), expected)


MUTATED = {"X.npz": np.savez, "Z.npz": np.savez_compressed}


@pytest.mark.parametrize(
    "name", ["X.idx", "X.gz", "X.npy", *MUTATED, "a.png", "a.jpg", "a.gif", "a.bmp"]
)
def test_damaged_files_are_refused_or_read(tmp_path, name):
    path, labels = tmp_path / "files" / "cat" / name, tmp_path / "y.npy"
    path.parent.mkdir(parents=True)
    np.save(labels, np.arange(50) % 3)
    if name in ("X.idx", "X.gz"):
        data = idx(IMAGES[:50])
        path.write_bytes(gzip.compress(data) if name == "X.gz" else data)
    elif name == "X.npy":
        np.save(path, IMAGES[:50])
    elif name in MUTATED:
        MUTATED[name](path, X=IMAGES[:50], y=np.arange(50) % 3)
    else:
        Image.fromarray(IMAGES[0]).save(path)
    arguments: list[Path] = [tmp_path / "files"] if name.startswith("a.") else [path]
    if name in ("X.idx", "X.gz", "X.npy"):
        arguments.append(labels)
    whole, random, found = path.read_bytes(), np.random.default_rng(1), 0
    for _ in range(150):
        data = bytearray(whole)
        for at in random.integers(0, min(len(data), random.choice([60, len(data)])), 3):
            data[at] = random.integers(256)
        path.write_bytes(bytes(data[: random.integers(len(data))] if found % 5 == 4 else data))
        try:
            for piece, _ in open_images(*arguments).pieces(7):
                assert len(piece) <= 7
        except InvalidImages:
            found += 1
    assert found > 20


def test_fashion_mnist(tmp_path):
    if not FASHION.is_dir():
        pytest.skip("dataset-fashion-mnist is not installed")
    images, labels = (FASHION / f"t10k-{each}-ubyte.gz" for each in ("images-idx3", "labels-idx1"))
    store = ingest_images(images, tmp_path / "fashion.zarr", labels).store
    with gzip.open(images) as packed:
        expected = np.frombuffer(packed.read()[16:], np.uint8).reshape(-1, 28, 28)
    assert store.class_counts == (1000,) * 10
    assert np.array_equal(rows(store)[0], expected)


@pytest.mark.slow
def test_files_that_lie_or_end_early(tmp_path, pair):
    _, y = pair
    out = tmp_path / "a.zarr"
    good = idx(IMAGES)

    def bad(data):
        return placed(tmp_path, bad=data)[0]

    refused("promises|holds 19,999", bad(good[:-1]), out, y)
    refused(
        "should hold 1,000 x 5 x 4 of uint8 .*, 20,000 bytes, and holds 20,003",
        bad(good + b"abc"),
        out,
        y,
    )
    refused("ends within its header", bad(good[:9]), out, y)
    refused("holds no values", bad(idx(IMAGES[:0])), out, y)
    refused("has 9 axes", bad(idx(np.zeros([1] * 9))), out, y)
    refused("4,000,000,000 x 5 x 4", bad(idx(IMAGES, shape=(4_000_000_000, 5, 4))), out, y)
    refused("neither IDX nor .npy", bad(b"\0\0\7\3" + good[4:]), out, y)
    # Packed files: what the header promises is no more than they can hold, and all that they hold.
    packed = gzip.compress(good)
    lie = gzip.compress(idx(IMAGES, shape=(2**32 - 1, 2**32 - 1, 4)))
    refused("packed bytes can't hold", bad(lie), out, y)
    refused(
        "ends after 20,000 of the 22,000",
        bad(gzip.compress(idx(IMAGES, shape=(1100, 5, 4)))),
        out,
        placed(tmp_path, z=idx(np.arange(1100) % 3))[0],
    )
    bomb = gzip.compress(good + bytes(2**28), 9)
    assert len(bomb) < 2**20
    refused("holds more than 1,000 x 5 x 4", bad(bomb), out, y)
    refused("damaged or cut short", bad(packed[:-20]), out, y)
    flipped = bytearray(packed)
    flipped[-8] ^= 1  # the checksum
    refused("damaged or cut short", bad(bytes(flipped)), out, y)
    assert not out.exists()
    assert sorted(path.name for path in tmp_path.iterdir() if "zarr" in path.name) == []


def test_images_beyond_the_disk_are_refused(tmp_path, monkeypatch):
    # A packed file may be true to its header, and still unpack to more than the disk holds.
    zeros = np.zeros((400_000, 100), np.uint8)
    X, y = placed(tmp_path, X=gzip.compress(idx(zeros), 1), y=idx(np.arange(400_000) % 2))
    place = "ooc_train.store.jobs.ingest_images.free_disk"
    monkeypatch.setattr(place, lambda _: 60 * 2**20)
    message = "400,000 images of 100 uint8 take 79.7 MiB .* and the disk has 60 MiB left"
    refused(message, X, tmp_path / "a.zarr", y, error=OSError)
    assert ingest_images(X, tmp_path / "b.zarr", y, codec="lz4").store.n_rows == 400_000


def test_labels_that_do_not_fit(tmp_path, pair):
    X, y = pair
    out = tmp_path / "a.zarr"
    fewer = placed(tmp_path, z=idx(LABELS[:10]))[0]
    refused("holds 1,000 images and .* 10 labels", X, out, fewer)
    refused("no images but perhaps labels", y, out, X)
    refused("labels are one to an image", X, out, X)
    refused("no images but perhaps labels", y, out)
    refused("nothing at", X, out, tmp_path / "none", error=TableNotFound)
    np.save(tmp_path / "y.npy", np.arange(N))
    images = np.zeros((20_000, 1, 1), np.uint8)
    np.save(tmp_path / "many.npy", images)
    np.save(tmp_path / "unlike.npy", np.arange(20_000))
    refused("more than 10,000 different", tmp_path / "many.npy", out, tmp_path / "unlike.npy")
    refused("size and grayscale are for folders", X, out, y, size=(2, 2), error=ValueError)
    refused("names an array of .npz", X, out, y, x="X", error=ValueError)
    refused("random_state=-1", X, out, y, random_state=-1, error=ValueError)
    refused("test_size=1", X, out, y, test_size=1, error=ValueError)
    out.mkdir()
    refused("exists already", X, out, y, error=OutputExists)


def test_arrays_of_numpy_that_are_refused(tmp_path, pair):
    _, y = pair
    out, path = tmp_path / "a.zarr", tmp_path / "X.npy"
    np.save(path, np.array([[None, 1]], object), allow_pickle=True)
    refused("Python objects, which could run code", path, out, y)
    np.save(path, np.asfortranarray(IMAGES))
    refused("Fortran order", path, out, y)
    np.save(path, IMAGES.astype(complex))
    refused("holds complex128", path, out, y)
    bad = IMAGES.astype("f4")
    bad[700, 3, 2] = np.nan
    np.save(path, bad)
    refused("nan in row 700 at 3,2", path, out, y)
    np.save(path, IMAGES)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    refused("20,000 bytes, and holds 19,995", path, out, y)
    path.write_bytes(whole.replace(b"(1000, 5, 4)", b"(9999, 5, 4)"))
    refused("should hold 9,999", path, out, y)
    path.write_bytes(whole.replace(b"(1000, 5, 4)", b"(1000, 5, 4x"))
    refused("damaged header", path, out, y)
    path.write_bytes(whole[:6] + b"\2\0" + struct.pack("<I", 2**31) + whole[10:])
    refused("a header of 2,147,483,648 bytes", path, out, y)


@pytest.mark.slow
def test_archives_that_are_refused(tmp_path):
    out, path = tmp_path / "a.zarr", tmp_path / "a.npz"
    np.savez(path, one=IMAGES, y=LABELS)
    refused(
        r"has 0 arrays of the names X.*'one', 'y'; name the one to read, as x='NAME'", path, out
    )
    refused("has no array 'two'", path, out, x="two")
    np.savez(tmp_path / "X.npz", X=IMAGES, y=LABELS[:4])
    refused("1,000 images and .* 4 labels", tmp_path / "X.npz", out)
    header = np.lib.format
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        with archive.open("X.npy", "w") as file:
            header.write_array_header_1_0(
                file, {"descr": "|u1", "fortran_order": False, "shape": (N, 5, 4)}
            )
            file.write(bytes(2**28))
        with archive.open("y.npy", "w") as file:
            np.lib.format.write_array(file, LABELS)
    assert path.stat().st_size < 2**20
    refused("should hold 1,000 x 5 x 4 .* and holds 268,435,456", path, out)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive,
        archive.open("X.npy", "w") as file,
    ):
        np.lib.format.write_array(file, IMAGES)
    refused("another way than deflate", path, out)
    path.write_bytes(b"PK\3\4" + bytes(100))
    refused("damaged or cut short", path, out)


@pytest.fixture
def folder(tmp_path):
    """A folder of images by class: 12 of 6 x 4 pixels, in two classes."""
    made = tmp_path / "photos"
    for i in range(12):
        name = made / ("cat", "dog")[i % 2] / f"{i:02}.png"
        name.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGES_OF_COLOUR[i]).save(name)
    return made


IMAGES_OF_COLOUR = RANDOM.integers(0, 256, (12, 4, 6, 3), np.uint8)
IN_ORDER = np.concatenate([IMAGES_OF_COLOUR[::2], IMAGES_OF_COLOUR[1::2]])


def test_a_folder_of_images(folder, tmp_path):
    made = ingest_images(folder, tmp_path / "a.zarr", test_size=0.25)
    assert made.test is not None
    assert made.store.X.shape == (9, 4, 6, 3)
    assert made.store.classes == ("cat", "dog")
    for store in (made.store, made.test):
        ids = store.read("row_id")
        assert np.array_equal(store.read("X"), IN_ORDER[ids])
        assert np.array_equal(store.read("y"), ids >= 6)
    grey = ingest_images(folder, tmp_path / "grey.zarr", grayscale=True).store
    expected = [np.asarray(Image.fromarray(each).convert("L")) for each in IN_ORDER]
    assert np.array_equal(rows(grey)[0], expected)
    small = ingest_images(folder, tmp_path / "small.zarr", size="3x2").store
    assert small.X.shape == (12, 2, 3, 3)
    small_one = Image.fromarray(IN_ORDER[5]).resize((3, 2), Image.Resampling.BILINEAR)
    assert np.array_equal(rows(small)[0][5], np.asarray(small_one))


def test_kinds_of_images_in_a_folder(folder, tmp_path):
    grey = Image.fromarray(IMAGES_OF_COLOUR[0, ..., 0])
    grey.save(folder / "cat" / "z.bmp")
    with_alpha = Image.fromarray(IMAGES_OF_COLOUR[1]).convert("RGBA")
    with_alpha.save(folder / "dog" / "z.webp", lossless=True)
    turned = Image.fromarray(np.rot90(IMAGES_OF_COLOUR[2]))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter to the right
    turned.save(folder / "dog" / "zz.png", exif=exif)
    (folder / "dog" / ".DS_Store").write_text("hidden files are left out")
    X, labels = rows(ingest_images(folder, tmp_path / "a.zarr").store)
    assert np.array_equal(X[6], np.repeat(IMAGES_OF_COLOUR[0, ..., :1], 3, axis=2))
    assert np.array_equal(X[13], IMAGES_OF_COLOUR[1])
    assert np.array_equal(X[14], IMAGES_OF_COLOUR[2])
    assert labels.tolist() == ["cat"] * 7 + ["dog"] * 8


def bomb(width, height):
    """Return a PNG of one bit a pixel, all of them 0, whose data are not there."""

    def part(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">2I5B", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(bytes(2**20)))


def test_folders_that_are_refused(folder, tmp_path):
    out, odd = tmp_path / "a.zarr", folder / "dog" / "z.png"

    def save(image, **settings):
        image.save(odd, **settings)

    save(Image.fromarray(IMAGES_OF_COLOUR[0, :3]))
    refused(r"z.png has 6 x 3 pixels, and images before it 6 x 4; .*size='6x4'", folder, out)
    ingest_images(folder, tmp_path / "scaled.zarr", size=(6, 4))
    save(Image.fromarray(np.dstack([IMAGES_OF_COLOUR[0], np.full((4, 6), 200, np.uint8)])))
    refused("z.png has transparent pixels", folder, out)
    save(Image.fromarray(np.zeros((4, 6), np.uint16)))
    refused("z.png has pixels of the kind I", folder, out)
    whole = (folder / "cat" / "00.png").read_bytes()
    odd.write_bytes(whole[:-30])
    refused("z.png can't be decoded", folder, out)
    odd.write_bytes(b"no image")
    refused("z.png can't be decoded", folder, out)
    odd.write_bytes(bomb(20_000, 20_000))
    refused("z.png is too large", folder, out, size=(6, 4))
    odd.write_bytes(bomb(9_000, 9_000))
    refused("z.png has 81,000,000 pixels, about .* GiB to decode", folder, out, size=(6, 4))
    odd.write_bytes(bomb(2_000, 2_000))
    refused(
        f"z.png has 4,000,000 pixels, about {4e6 * PIXEL_BYTES / 2**20:.3g} MiB to decode, .*"
        "or raise the memory ceiling",
        folder,
        out,
        size=(6, 4),
        memory_ceiling="64MiB",
    )
    odd.unlink()
    (folder / "notes.txt").write_text("")
    refused("'notes.txt' beside folders of classes", folder, out)
    (folder / "notes.txt").rename(folder / "cat" / "notes.txt")
    refused("cat holds 'notes.txt', by the name no image", folder, out)
    (folder / "cat" / "notes.txt").unlink()
    (folder / "bird").mkdir()
    refused("bird holds no image", folder, out)
    (folder / "bird").rmdir()
    refused("leave labels, x and y out", folder, out, folder, error=ValueError)
    refused("size='6' is not width and height", folder, out, size="6", error=ValueError)
    refused("size=", folder, out, size=(0, 2), error=ValueError)
    for image in (folder / "cat").iterdir():
        Image.open(image).convert("L").save(image)
    refused("has colours, and images before it are grey; .*grayscale=True", folder, out)


def here(*arguments):
    return CliRunner().invoke(app, [os.fspath(argument) for argument in arguments])


def test_the_command(pair, folder, tmp_path):
    X, y = pair
    made = here("ingest", X, y, tmp_path / "a.zarr", "--test-size", "0.2", "--no-shuffle")
    assert made.exit_code == 0, made.output
    assert "a.zarr: 800 images of 5 x 4 uint8" in made.stdout
    assert "a.test.zarr: 200 images of 5 x 4 uint8" in made.stdout
    assert "memory: ceiling" in made.stdout
    assert open_store(tmp_path / "a.zarr").shuffled is None
    photos = here(
        "ingest", folder, tmp_path / "b.zarr", "--size", "3x2", "--grayscale", "--json", "--quiet"
    )
    found = json.loads(photos.stdout)
    assert found["store"]["row_shape"] == [2, 3]
    assert found["store"]["classes"] == ["cat", "dog"]
    assert (found["recipe"], found["test"]) == (None, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "a", "--id", "b"], "--target, --id: images have no columns"),
        (["--dry-run"], "--dry-run: images have no columns"),
        (["--dtype", "float64", "--encoding", "latin1"], "--dtype, --encoding: images"),
        (["--size", "6"], "--size 6 is not width and height"),
        (["--size", "6x6"], "are for folders of images"),
    ],
)
def test_options_that_are_for_others(pair, tmp_path, options, message):
    failed = here("ingest", *pair, tmp_path / "a.zarr", *options)
    assert failed.exit_code == 1
    assert message in failed.stderr.replace("\n", " ")


def test_without_pillow(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"pip install pillow"):
        ingest_images(folder, tmp_path / "a.zarr")
    failed = here("ingest", folder, tmp_path / "a.zarr")
    assert failed.exit_code == 1
    assert "folders of images need the package pillow" in failed.stderr


def test_folders_of_tables_are_no_images(tmp_path):
    (tmp_path / "year=2013").mkdir()
    (tmp_path / "year=2013" / "a.csv").write_text("a,b\n1,2\n")
    failed = here("ingest", tmp_path, tmp_path / "a.zarr")
    assert "no CSV or Parquet file matches" in failed.stderr
    (tmp_path / "b.csv").write_text("a,b\n1,2\n2,3\n")
    (tmp_path / "year=2013" / "plot.png").write_bytes(b"")
    assert here("ingest", tmp_path, tmp_path / "a.zarr", "--target", "b").exit_code == 0


def test_ingest_of_images_loads_nothing_for_tables():
    code = "import sys, ooc_train.store.jobs.ingest_images; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"pyarrow", "PIL", "pandas"} & set(done.stdout.split()) == set()


def test_tables_are_no_images(pair, tmp_path):
    for paths in (pair[0], [pair[1]]):
        with pytest.raises(InvalidTable, match=r"no table; use ooc_train.ingest_images\("):
            ingest(paths, tmp_path / "a.zarr")


def test_options_of_images_are_not_for_tables(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    failed = here("ingest", tmp_path / "a.csv", tmp_path / "a.zarr", "--size", "6x6")
    assert failed.exit_code == 1
    assert "--size: these files hold no images" in failed.stderr
    failed = here("ingest", *[tmp_path / "a.csv"] * 2, tmp_path / "a.zarr", "--grayscale")
    assert "--grayscale: these files hold no images" in failed.stderr
