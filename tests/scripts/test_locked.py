"""Which releases the run with pinned packages has that this environment has not."""

from importlib.metadata import version

from scripts import locked


def test_releases_that_differ_from_those_here_are_found():
    pins = [f"torch=={version('torch')}", f"Huggingface_Hub=={version('huggingface-hub')}", "not-here-at-all==1"]
    text = "".join(f"{pin} \\\n    --hash=sha256:00\n" for pin in pins)
    assert locked.other_releases(text) == []
    assert locked.other_releases(f"{text}pillow==0.1\nnumpy==0.2 ; python_version >= '3'\n") == [
        "pillow==0.1",
        "numpy==0.2",
    ]


def test_every_pin_is_read():
    text = locked.REQUIREMENTS.read_text(encoding="utf-8")
    assert len(locked.other_releases(text.replace("==", "==0."))) > 100
