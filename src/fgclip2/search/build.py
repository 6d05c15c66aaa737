"""Bringing the index of a folder up to date."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ..embedding import Embedder, Skipped
from ..errors import IncompatibleIndexError
from .scan import ImageFile, UnusableFile, scan_folder
from .store import read_index, refuse_foreign_manifest, write_index

SECONDS_BETWEEN_SAVES = 30.0


@dataclass(frozen=True)
class IndexReport:
    """Numbers of files that [`ImageIndex.build`] dealt with; `unusable` ones are not in the index."""

    added: int
    updated: int
    removed: int
    unchanged: int
    unusable: int


@dataclass
class IndexBuild:
    """One run over a folder: embeds what is new or changed and saves as it goes.

    Args:
        folder: Folder of images, resolved.
        index_folder: Where the index is kept.
        embedder: Embeds the images.
        max_num_patches: Patch budget of the images; `None` where the family has none.
        batch_size: As in [`Embedder`].
    """

    folder: Path
    index_folder: Path
    embedder: Embedder
    max_num_patches: int | str | None
    batch_size: int
    rows: dict[ImageFile, np.ndarray] = field(default_factory=dict)
    unusable: list[UnusableFile] = field(default_factory=list)
    next_save: float = 0.0

    @property
    def model(self) -> dict[str, Any]:
        return {
            "name": self.embedder.name,
            "revision": self.embedder.revision,
            "fingerprint": self.embedder.fingerprint,
            "embedding_size": self.embedder.embedding_size,
        }

    @property
    def settings(self) -> dict[str, Any]:
        return {"max_num_patches": self.max_num_patches}

    def run(self, rebuild: bool, show_progress_bar: bool | None) -> IndexReport:
        """Embed, save, and report. What was done before an interruption is saved too."""
        self.index_folder.mkdir(parents=True, exist_ok=True)  # fails now rather than after the work
        self.next_save = time.monotonic() + SECONDS_BETWEEN_SAVES
        refuse_foreign_manifest(self.index_folder)  # before hours of work, not after
        old, old_unusable = ({}, None) if rebuild else self._read()
        found, self.unusable = scan_folder(self.folder)
        self.rows = {file: old[file] for file in found if file in old}
        unchanged = len(self.rows)
        new = [file for file in found if file not in old]
        paths = [self.folder / file.path for file in new]
        options = (self.max_num_patches, self.batch_size, show_progress_bar)
        try:
            for index, result in self.embedder.stream_images(paths, *options, on_error="skip"):
                if isinstance(result, Skipped):
                    reason = result.reason.removeprefix(f"images[{index}]: ")
                    self.unusable.append(UnusableFile(new[index].path, reason))
                else:
                    self.rows[new[index]] = result
                began = time.monotonic()
                if began >= self.next_save:
                    self._save()
                    # So rarely that writing takes a small part of the time, however large the index.
                    done = time.monotonic()
                    self.next_save = done + max(SECONDS_BETWEEN_SAVES, 20 * (done - began))
        finally:
            if self.rows.keys() != old.keys() or self.unusable != old_unusable:
                self._save()
        old_paths = {file.path for file in old}
        updated = sum(file.path in old_paths for file in self.rows.keys() - old.keys())
        return IndexReport(
            added=len(self.rows) - unchanged - updated,
            updated=updated,
            removed=len(old_paths - {file.path for file in found}),
            unchanged=unchanged,
            unusable=len(self.unusable),
        )

    def arrays(self) -> tuple[list[ImageFile], np.ndarray]:
        """Return the files, sorted, and their vectors (files, D)."""
        files = sorted(self.rows)
        empty = np.zeros((0, self.embedder.embedding_size), np.float32)
        return files, np.stack([self.rows[file] for file in files]) if files else empty

    def _read(self) -> tuple[dict[ImageFile, np.ndarray], list[UnusableFile] | None]:
        stored = read_index(self.index_folder)
        if stored is None:
            return {}, None
        manifest, vectors = stored
        # Vectors of another model, or of the same at another resolution, can't be mixed with new ones.
        remedy = "use that, keep a second index elsewhere (index_folder), or start anew (rebuild=True, --rebuild)"
        made_by = manifest["model"]
        if made_by["fingerprint"] != self.model["fingerprint"]:
            name = made_by["name"] + (f" at revision {made_by['revision']}" if made_by["revision"] else "")
            raise IncompatibleIndexError(
                f"the index {self.index_folder} was made by the model {name!r}, which is not the model "
                f"{self.embedder.name!r} as it is now: {remedy}"
            )
        if manifest["settings"] != self.settings:
            raise IncompatibleIndexError(
                f"the index {self.index_folder} was made with {manifest['settings']}, not {self.settings}: {remedy}"
            )
        files = [ImageFile(*file) for file in manifest["files"]]
        return dict(zip(files, vectors, strict=True)), [UnusableFile(*file) for file in manifest["unusable"]]

    def _save(self) -> None:
        files, vectors = self.arrays()
        manifest = {
            "model": self.model,
            "settings": self.settings,
            "versions": {name: version(name) for name in ("fgclip2", "transformers", "torch", "pillow")},
            "files": [list(file) for file in files],
            "unusable": [list(file) for file in self.unusable],
        }
        write_index(self.index_folder, manifest, vectors)
