"""What building the page of examples/browser says where something is not there."""

import pytest

from scripts.browser_page import build_page


def test_packages_that_npm_has_not_installed_are_named(tmp_path):
    installed = tmp_path / "node_modules" / "onnxruntime-web" / "dist" / "ort.wasm.bundle.min.mjs"
    installed.parent.mkdir(parents=True)
    installed.touch()
    message = r"lacks onnxruntime-web/dist/ort-wasm.*: run `npm ci --prefix examples/browser`"
    with pytest.raises(FileNotFoundError, match=message):
        build_page(tmp_path / "page", tmp_path / "node_modules")
    assert not (tmp_path / "page").exists()
