"""Install the built wheel with one extra at a time, and use what the extra is for, as its user would.

    python -m scripts.package          # builds dist/
    python -m scripts.extras           # or: python -m scripts.extras onnx openvino

Each environment has this one's torch, and otherwise what pip installs for the wheel and that extra. The uses run in a
folder of their own with the bundled pictures, outside the checkout and offline.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from .environments import ROOT, link_torch, make_environment

Use = tuple[str, ...] | str  # arguments of the command `fgclip2`, or a program in Python


def with_server(command: str, address: str, use: str) -> str:
    """Return a program that starts a server, uses it as soon as an address answers, and ends it.

    Args:
        command: Arguments of `fgclip2` that start the server.
        address: What answers when it is ready.
        use: Lines of the program, indented by four spaces.
    """
    return f"""
import subprocess, sys, time
from urllib.request import urlopen
server = subprocess.Popen([sys.executable, "-m", "fgclip2", *{command.split()!r}])
try:
    for _ in range(120):
        try:
            urlopen({address!r})
            break
        except OSError:
            time.sleep(1)
{use}
finally:
    server.terminate()
    assert server.wait(60) in (0, -15)  # uvicorn ends by the signal that it was given
"""


ONNX: tuple[Use, ...] = (
    ("export", "graphs", "--format", "onnx", "--precision", "fp32", "--compared-items", "8"),
    """
import numpy as np
from fgclip2 import Embedder
torch, graphs = Embedder.from_pretrained(device="cpu"), Embedder.from_pretrained("graphs", backend="onnx")
for text in ("一只黑猫", "a black cat"):
    np.testing.assert_allclose(graphs.encode_texts(text), torch.encode_texts(text), atol=1e-5)
""",
)
USES: dict[str, tuple[Use, ...]] = {
    "parquet": (
        ("embed", "scenes/images", "--output", "图像.parquet"),
        "import pyarrow.parquet; assert pyarrow.parquet.read_table('图像.parquet').num_rows == 6",
        (
            *("embed", "图像.parquet", "--engine", "local", "--kind", "text", "--id-column", "image"),
            *("--text-column", "image", "--output", "names", "--workers", "1"),
        ),
        "import pyarrow.parquet; assert pyarrow.parquet.read_table('names/tables/vectors').num_rows == 6",
    ),
    "train": (
        ("train", "settings.yaml"),
        ("embed", "--text", "一只黑猫", "--model", "run", "--output", "vectors.npy"),
    ),
    "data": (("data", "validate", "scenes/scenes_zh.json", "--images-folder", "scenes"),),
    "bench": (
        ("bench", "run", "image-folder", "albums", "--set", "templates=none", "--output", "results"),
        ("bench", "report", "results", "--output", "report"),
        "from pathlib import Path; assert Path('report.png').is_file()",
    ),
    "onnx": (
        *ONNX,
        ("export", "immich", "--format", "immich"),
        ("export", "javascript", "--format", "transformers.js"),
        ("export", "hub", "--format", "hub", "--onnx", "int8"),
    ),
    # A process of its own: OpenVINO beside torch has been seen to crash.
    "openvino": (
        *ONNX,
        """
import numpy as np
from fgclip2_onnx import OnnxEmbedder
expected = OnnxEmbedder.from_pretrained("graphs").encode_texts(["一只黑猫", "a black cat"])
found = OnnxEmbedder.from_pretrained("graphs", runtime="openvino").encode_texts(["一只黑猫", "a black cat"])
np.testing.assert_allclose(found, expected, atol=1e-5)
""",
    ),
    "jieba": (
        "from fgclip2.embedding import split_by_jieba; assert len(split_by_jieba('草地上的黑狗和红色的球')) > 1",
    ),
    "search": (
        ("index", "drawings", "--cache", "hnsw"),
        ("search", "drawings", "水果", "a red car", "--no-update", "--approximate"),
        ("index", "drawings", "--verify"),
    ),
    "usearch": (
        ("index", "drawings"),
        "from fgclip2.search import ImageIndex; ImageIndex.load('drawings').export('usearch', 'for_usearch')",
    ),
    "lancedb": (
        ("index", "drawings"),
        "from fgclip2.search import ImageIndex; ImageIndex.load('drawings').export('lancedb', 'for_lancedb')",
    ),
    "video": (
        """
from pathlib import Path
import av, numpy as np
Path("clips").mkdir()
with av.open("clips/红.mp4", "w") as clip:
    stream = clip.add_stream("mpeg4", rate=4)
    stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
    for row in range(8):
        pixels = np.full((64, 64, 3), (255, 0, 0), np.uint8)
        clip.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
    clip.mux(stream.encode(None))
""",
        ("index", "clips", "--video", "1"),
        ("search", "clips", "红色", "--no-update"),
    ),
    "calibrate": (
        """
import json
from pathlib import Path
names = {path: path.stem.rpartition("-")[0] for path in sorted(Path("drawings").iterdir())}
lines = [
    {"image": str(path), "text": text.replace("-", " "), "label": int(text == name)}
    for path, name in names.items() for text in (name, "forest path")
]
Path("pairs.jsonl").write_text("".join(json.dumps(line) + "\\n" for line in lines), encoding="utf-8")
""",
        ("calibrate", "pairs.jsonl", "--output", "calibration.json"),
        ("search", "drawings", "a red apple", "--calibration", "calibration.json"),
    ),
    "ray": (
        (
            *("embed", "drawings", "--engine", "ray", "--output", "vectors"),
            *("--workers", "1", "--cpus-per-worker", "1", "--device", "cpu"),
        ),
        "import pyarrow.parquet; assert pyarrow.parquet.read_table('vectors/tables/vectors').num_rows == 273",
    ),
    "serve": (
        ("index", "drawings"),
        with_server(
            "serve --folder drawings --port 8765",
            "http://127.0.0.1:8765/ready",
            """
    import json
    from urllib.request import Request
    body = json.dumps({"query": "红苹果", "top_k": 1}).encode()
    request = Request("http://127.0.0.1:8765/v1/search", body, {"Content-Type": "application/json"})
    assert "red-apple" in json.load(urlopen(request))["hits"][0]["path"]
""",
        ),
    ),
    "app": (
        ("index", "drawings"),
        with_server(
            "app --folder drawings --port 8766",
            "http://127.0.0.1:8766/en/",
            """
    assert "搜索" in urlopen("http://127.0.0.1:8766/zh/").read().decode()
""",
        ),
    ),
    "mcp": (
        ("index", "drawings"),
        """
import asyncio, sys
from mcp.client.session import ClientSession
from mcp.client.stdio import StdioServerParameters, stdio_client
async def main():
    command = StdioServerParameters(command=sys.executable, args=["-m", "fgclip2", "mcp", "--root", "drawings"])
    async with stdio_client(command) as streams, ClientSession(*streams) as session:
        await session.initialize()
        return (await session.call_tool("search", {"query": "红苹果", "top_k": 1})).structured_content
assert "red-apple" in asyncio.run(main())["images"][0]["path"]
""",
    ),
}


FILES = """
import shutil
from pathlib import Path
from fgclip2.assets import demo_images, embedded_checkpoint
shutil.copytree(demo_images() / "pictures", "drawings")
shutil.copytree(demo_images() / "scenes", "scenes")
for name in ("dog face", "red apple"):
    shutil.copytree("drawings", f"albums/{name}", ignore=lambda _, files: [
        file for file in files if not file.startswith(name.replace(" ", "-"))
    ])
Path("settings.yaml").write_text(
    f"model: {embedded_checkpoint()}\\ntrain_data: scenes/scenes_zh.json\\nimages_folder: scenes\\noutput_dir: run\\n"
    "lora: true\\nmax_steps: 1\\nper_device_train_batch_size: 2\\n", encoding="utf-8"
)
"""


def use(extra: str, wheels: list[Path], torch: Path, folder: Path) -> None:
    """Make the environment of one extra, and run its uses in a new folder.

    Args:
        extra: Name of the extra.
        wheels: Of fgclip2, and of fgclip2-onnx, which no index has.
        torch: Folder that has torch and what it needs.
        folder: Where the environment and the files of the uses go.

    Raises:
        SystemExit: A use failed.
    """
    wheel, onnx_wheel = wheels
    python = make_environment(folder / "venv", [f"{wheel}[{extra}]", "--find-links", str(onnx_wheel.parent)], torch)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "HOME": str(folder)}
    environment.pop("PYTHONPATH", None)
    (folder / "files").mkdir()
    for each in (FILES, *USES[extra]):
        command = ["-c", each] if isinstance(each, str) else ["-m", "fgclip2", *each]
        done = subprocess.run(
            [str(python), *command], cwd=folder / "files", env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"{extra}: {each}\n{done.stdout}{done.stderr}")
    print(f"{extra}: {len(USES[extra])} uses, good", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("extras", nargs="*", choices=[[], *USES], help="Which; all by default.")
    options = parser.parse_args()
    wheels = [path for pattern in ("fgclip2-*.whl", "fgclip2_onnx-*.whl") for path in (ROOT / "dist").glob(pattern)]
    if len(wheels) != 2:
        raise SystemExit(f"{ROOT / 'dist'} must have one wheel of each package: run python -m scripts.package")
    with tempfile.TemporaryDirectory() as name:
        torch = link_torch(Path(name, "torch"))
        for extra in options.extras or USES:
            folder = Path(name, extra)
            use(extra, wheels, torch, folder)
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
