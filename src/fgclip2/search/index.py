"""ImageIndex: the vectors of a folder of images, kept up to date on disk and searched exactly."""

from __future__ import annotations

import os
import shlex
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import numpy as np

from ..checks import check_choice, check_positive_integer
from ..embedding import DenseMap, Embedder, PhraseMatch, Skipped, split_phrases
from ..embedding.phrases import Splitter
from ..embedding.reranker import CANDIDATES, RERANKERS, ImageMatch, RerankedHit, match_pairs, ordered, score_pairs
from ..errors import IncompatibleIndexError
from ..files import printable
from .build import IndexBuild, IndexReport, made_by, vector_kind
from .dense_maps import KINDS, StoredMap
from .queries import ImageQuery, Query, check_queries, images_of, is_copy, is_query, parts_of, query_vectors
from .scan import ImageFile, UnusableFile
from .store import DAMAGE, StoredIndex, read_index

DEFAULT_INDEX_FOLDER = ".fgclip2_index"
VECTORS_PER_BLOCK = 65536


class SearchHit(NamedTuple):
    """A found image and the cosine of its vector with the query's."""

    path: Path
    score: float


class RerankedSearchHit(NamedTuple):
    """A found image after re-ranking: what [`fgclip2.embedding.RerankedHit`] has, and the image's path."""

    path: Path
    score: float
    reranked: float
    phrases: list[PhraseMatch]


@dataclass
class ImageIndex:
    """The images of a folder with their vectors.

    On disk an index is a folder with `manifest.json` (model, settings, versions, what can't be used) and the vectors
    as safetensors, in blocks with path, size and modification time of each file. All of it is checked by hashes when
    it is read; a damaged block costs its rows only, with a warning. One run at a time may write an index; reading it
    needs no turn. Search is exact: every vector is compared.

    With dense maps, which are off by default, re-ranking opens no picture. They are large: 256 patches of 768 values
    are 393 kB an image as `"fp16"`, or 197 kB as `"int8"` (with a scale for each patch). They lie in blocks of their
    own, of which a search reads the maps of its candidates only.

    Args:
        folder: The folder of images.
        files: The images in it, sorted by path.
        vectors: Float32 (files, D), L2-normalised.
        model: `name`, `revision`, `fingerprint` and `embedding_size` of the model that made the vectors.
        settings: `max_num_patches` that the images were encoded with, and what [`Embedder.describe_vectors`] says.
        unusable: Files that can't be read or that lie outside the folder, with reasons.
        report: What [`build`] did; `None` after [`load`].
        left_out: How many files are none of [`IMAGE_SUFFIXES`], by suffix in lower case. After [`load`] as it was when
            the index was last written.
        dense: Which dense maps there are, `"fp16"` or `"int8"`; `None`: none.
        maps: The place of the dense map of each file. A file is left out as long as its map is damaged or not made
            yet; without dense maps there are none.

    Example:
        >>> from fgclip2 import FGClip2Embedder
        >>> from fgclip2.search import ImageIndex
        >>> embedder = FGClip2Embedder.from_pretrained()
        >>> index = ImageIndex.build("photos", embedder)  # later calls embed only what is new or changed
        >>> for hit in index.search("一只黑猫", embedder, top_k=3):
        ...     print(hit.path, hit.score)
        >>> results = index.search(["a red car", "红色的汽车"], embedder)  # a list of hits for each
    """

    folder: Path
    files: list[ImageFile]
    vectors: np.ndarray
    model: dict[str, Any]
    settings: dict[str, Any]
    unusable: list[UnusableFile] = field(default_factory=list)
    report: IndexReport | None = None
    left_out: dict[str, int] = field(default_factory=dict)
    dense: str | None = None
    maps: Mapping[ImageFile, StoredMap] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def dense_bytes(self) -> int:
        """Bytes of the files that the dense maps lie in."""
        return sum({its_map.block.name: its_map.block.nbytes for its_map in self.maps.values()}.values())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} images in {str(self.folder)!r}, model {self.model['name']!r})"

    @classmethod
    def build(
        cls,
        folder: str | os.PathLike,
        embedder: Embedder,
        index_folder: str | os.PathLike | None = None,
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        rebuild: bool = False,
        show_progress_bar: bool | None = None,
        follow_links: bool = False,
        compare_contents: bool = False,
        dense: str | None = None,
    ) -> ImageIndex:
        """Index a folder and its subfolders, or bring its index up to date.

        Only new and changed files (by size and modification time) are embedded, removed ones are dropped, and files
        that could not be decoded are not tried again. Every 10 seconds, as the next images are done, and at the end the
        work is saved, so that an interrupted run goes on where it was.

        Args:
            folder: Folder of images; hidden files and links that leave it are not used.
            embedder: Embeds the images.
            index_folder: Where the index is kept; `None`: `.fgclip2_index` inside `folder`.
            max_num_patches: Patch budget of the images; `None`: the processor's setting.
            batch_size: As in [`Embedder`].
            rebuild: Start anew instead of refusing an index that does not fit.
            show_progress_bar: As in [`Embedder`].
            follow_links: Use what links lead to outside `folder`, and links to folders. By default these are not used,
                and an index folder or a file in it that is a link out of its place is refused.
            compare_contents: Read each file and compare hashes, to see changes that leave size and time as they were.
                Files whose hash the index does not have yet are embedded again. Dense maps are read and checked, too.
            dense: Keep dense maps for re-ranking: `"fp16"`, `"int8"` (half the space, cosines within about 0.01) or
                `"none"`; `None`: what the index has, also where it is rebuilt, and none in a new one. Of 256 patches
                and 768 values they take 393 or 197 kB an image. Images without one, or with the other kind, run
                through the model again.

        Raises:
            ValueError: There is no such folder, or `dense` has another value or a model without dense features.
            IncompatibleIndexError: The index was made by another model or with other settings, or is damaged.
            LockedIndexError: Another run writes the index.
            OSError: The index can't be written there.
            KeyboardInterrupt: The run was interrupted; the message says what is saved.
        """
        check_choice("dense", dense, (None, *KINDS, "none"))
        folder = _existing_folder(folder)
        if max_num_patches is None and embedder.processor.patch_budgets is not None:
            max_num_patches = embedder.processor.image_processor.max_num_patches
        where = _index_folder(folder, index_folder, follow_links)
        options = (max_num_patches, batch_size, follow_links, compare_contents, dense, rebuild)
        build = IndexBuild(folder, where, embedder, *options)
        return cls._of(folder, *build.run(show_progress_bar))

    @classmethod
    def load(
        cls, folder: str | os.PathLike, index_folder: str | os.PathLike | None = None, follow_links: bool = False
    ) -> ImageIndex:
        """Read the index of a folder as it is, without looking for changes, and without waiting for a run that writes.

        Raises:
            ValueError: There is no such folder, or it has no index.
            IncompatibleIndexError: The index is damaged.
        """
        folder = _existing_folder(folder)
        stored = read_index(_index_folder(folder, index_folder, follow_links), follow_links)
        if stored is None:
            place = ["--index", os.fspath(index_folder)] if index_folder else []
            command = printable(shlex.join(["fgclip2", "index", str(folder), *place]))
            raise ValueError(f"{printable(folder)} has no index: make it by ImageIndex.build, or by `{command}`")
        return cls._of(folder, stored)

    @classmethod
    def _of(cls, folder: Path, stored: StoredIndex, report: IndexReport | None = None) -> ImageIndex:
        arrays = stored.arrays()
        return cls(
            folder,
            *arrays,
            stored.model,
            stored.settings,
            stored.unusable,
            report,
            stored.left_out,
            stored.dense,
            stored.maps,
        )

    @overload
    def search(  # type: ignore[overload-overlap]  # a string is a query here, not a sequence
        self,
        query: str,
        embedder: Embedder,
        top_k: int = 10,
        *,
        rerank: Literal["phrases", "model"],
        candidates: int = CANDIDATES,
        batch_size: int = 32,
        split: Splitter = split_phrases,
    ) -> list[RerankedSearchHit]: ...

    @overload
    def search(
        self,
        query: Sequence[str],
        embedder: Embedder,
        top_k: int = 10,
        *,
        rerank: Literal["phrases", "model"],
        candidates: int = CANDIDATES,
        batch_size: int = 32,
        split: Splitter = split_phrases,
    ) -> list[list[RerankedSearchHit]]: ...

    @overload
    def search(  # type: ignore[overload-overlap]
        self, query: Query, embedder: Embedder | None = None, top_k: int = 10
    ) -> list[SearchHit]: ...

    @overload
    def search(
        self, query: Sequence[Query], embedder: Embedder | None = None, top_k: int = 10
    ) -> list[list[SearchHit]]: ...

    @overload
    def search(  # type: ignore[overload-overlap]
        self, query: None = None, embedder: Embedder | None = None, top_k: int = 10, *, image: ImageQuery
    ) -> list[SearchHit]: ...

    @overload
    def search(
        self, query: None = None, embedder: Embedder | None = None, top_k: int = 10, *, image: Sequence[ImageQuery]
    ) -> list[list[SearchHit]]: ...

    def search(
        self,
        query: Query | Sequence[Query] | None = None,
        embedder: Embedder | None = None,
        top_k: int = 10,
        *,
        image: ImageQuery | Sequence[ImageQuery] | None = None,
        rerank: str | None = None,
        candidates: int = CANDIDATES,
        batch_size: int = 32,
        split: Splitter = split_phrases,
    ) -> list[Any]:
        """Find the images nearest to a query.

        An image that is searched by, alone, by a region or in a combined query, is left out of the answers, and so are
        links to it and files of the same content; a search by its vector finds them all.

        Args:
            query: A text (a `str`, in Chinese or English), an image (a `Path`, a PIL image or `bytes`, an encoded
                image), a [`Region`] of one, a vector (D,), a [`CombinedQuery`] of such, or a list of one of these; an
                array (N, D) counts as a list of vectors.
            embedder: Embeds texts and images; must be the model that made the index. Vectors need none.
            top_k: How many hits to return at most.
            image: Instead of `query`: an image, or a list of images, in which a `str` is a path too.
            rerank: `"phrases"` or `"model"`: the nearest images of a text are put in a new order, see
                [`Embedder.rerank`]; by its phrases, from their dense maps where the index has them. Others are read
                again, as all are by the model; those that can't be read any more are left out, with a warning.
            candidates: How many of the nearest images are re-ranked, `top_k` at least.
            batch_size: Images of 256 patches that are re-ranked at once, and by the model so many pairs.
            split: Makes the phrases of a text for `rerank="phrases"`; any function that takes a text and returns a list
                of texts.

        Returns:
            For one query its list of [`SearchHit`], best first; for a list of queries a list of such lists. With
            `rerank` the hits are [`RerankedSearchHit`].

        Raises:
            ValueError: The query is empty or can't be used, `top_k` is below 1, `rerank` has another value, no text to
                work with, or a model without dense features or without scores of pairs, or `split` is no function or
                gives no phrases.
            IncompatibleIndexError: The embedder is not the model that made the index.
        """
        check_positive_integer("top_k", top_k)
        check_positive_integer("candidates", candidates)
        check_choice("rerank", rerank, (None, *RERANKERS))
        if (query is None) == (image is None):
            raise ValueError("search takes one of `query` and `image`: index.search('一只狗', embedder), for instance")
        if image is not None:
            several = isinstance(image, (list, tuple))
            paths = [Path(one) if isinstance(one, str) else one for one in (image if several else [image])]  # type: ignore[union-attr]
            query = paths if several else paths[0]  # type: ignore[assignment]
        single = is_query(query)
        queries: list[Any] = [query] if single else list(query)  # type: ignore[arg-type]
        vectors = self._query_vectors(queries, embedder)
        if rerank is not None:
            if embedder is None or not all(isinstance(query, str) for query in queries):
                raise ValueError(f"rerank={rerank!r} needs queries that are texts, got an image or a vector")
            embedder.require_reranking(rerank)
            if rerank == "model" and split is not split_phrases:
                raise ValueError("split is of phrases, which rerank='model' has none of: leave it out")
            reranked = self._reranked(rerank, queries, vectors, embedder, max(top_k, candidates), batch_size, split)
            return reranked[0][:top_k] if single else [hits[:top_k] for hits in reranked]
        found = zip(*nearest(vectors, self.vectors, top_k + 1), strict=True)  # one more, for an image may find itself
        hits = [
            self._without_copies(one, vector, self._hits(*rows), top_k)
            for one, vector, rows in zip(queries, vectors, found, strict=True)
        ]
        return hits[0] if single else hits

    def _reranked(
        self,
        rerank: str,
        texts: list[str],
        vectors: np.ndarray,
        embedder: Embedder,
        candidates: int,
        batch_size: int,
        split: Splitter,
    ) -> list[list[RerankedSearchHit]]:
        """Return the nearest images of each text in their new order; an image without a map is read once."""
        scores, rows = nearest(vectors, self.vectors, candidates)  # (texts, candidates) each
        paths = {row: self.folder / self.files[row].path for row in np.unique(rows).tolist()}
        pairs = [(text, int(row)) for text, its in enumerate(rows) for row in its]
        options = {"max_num_patches": self.settings["max_num_patches"], "batch_size": batch_size, "on_error": "skip"}
        found: dict[tuple[int, int], Any]  # (text, row) -> where its phrases were found, or the model's score
        if rerank == "model":
            found = dict(score_pairs(embedder, texts, paths, pairs, **options))
        else:
            found = self._match_phrases(embedder, texts, paths, pairs, split, options)
        reasons = sorted({result.reason for result in found.values() if isinstance(result, Skipped)})
        if reasons:
            warnings.warn(
                f"{len(reasons)} images of the index can't be read any more and are left out, e.g. {reasons[0]}: bring "
                "the index up to date (`fgclip2 index`, ImageIndex.build)",
                stacklevel=3,
            )
        results = []
        for text, (its_scores, its_rows) in enumerate(zip(scores, rows.tolist(), strict=True)):
            kept: list[tuple[Any, int, Any]] = [
                (score, row, result)
                for score, row in zip(its_scores, its_rows, strict=True)
                if not isinstance(result := found[text, row], Skipped)
            ]
            if rerank == "model":
                hits = [RerankedHit(row, float(score), result, []) for score, row, result in kept]
                hits.sort(key=lambda hit: -hit.reranked)
            else:
                its_scores, its_rows, its_matches = zip(*kept, strict=True) if kept else ((), (), ())
                hits = ordered(np.array(its_scores), [match.phrases for match in its_matches], its_rows)
            results.append([RerankedSearchHit(paths[hit.index], *hit[1:]) for hit in hits])
        return results

    def _match_phrases(
        self,
        embedder: Embedder,
        texts: list[str],
        paths: Mapping[int, Path],
        pairs: list[tuple[int, int]],
        split: Splitter,
        options: dict[str, Any],
    ) -> dict[tuple[int, int], ImageMatch | Skipped]:
        """Find the phrases of texts in images of the index, by their maps where there are any; see [`match_pairs`]."""
        damaged: dict[str, str] = {}  # name of a block -> reason

        def stored_map(row: int) -> DenseMap | None:
            stored = self.maps.get(self.files[row])
            if stored is None:
                return None
            try:
                return stored.block.read(stored.row).unpack()
            except DAMAGE as error:
                damaged[stored.block.name] = str(error)
                return None

        matches = dict(match_pairs(embedder, texts, paths, pairs, split, stored_map, **options))
        if damaged:
            warnings.warn(
                f"dense maps are damaged, so their images were read, e.g. {next(iter(damaged.values()))}: delete "
                f"{', '.join(sorted(damaged))} in the folder of the index, and bring it up to date (`fgclip2 index`, "
                "ImageIndex.build), which makes the maps of the images in it anew",
                stacklevel=4,
            )
        return matches

    def _hits(self, scores: np.ndarray, rows: np.ndarray) -> list[SearchHit]:
        return [
            SearchHit(self.folder / self.files[row].path, float(score)) for score, row in zip(scores, rows, strict=True)
        ]

    def _without_copies(self, query: Query, vector: np.ndarray, hits: list[SearchHit], top_k: int) -> list[SearchHit]:
        """Leave the query image, links to it and its copies out of its hits, and look for others in their place."""
        images = images_of(query)
        if not images:
            return hits[:top_k]
        others = [hit for hit in hits if not any(is_copy(hit.path, image) for image in images)]
        if len(others) >= top_k or len(hits) == len(self):
            return others[:top_k]
        scores, rows = nearest(vector[None], self.vectors, 2 * len(hits))  # (1, K) each
        return self._without_copies(query, vector, self._hits(scores[0], rows[0]), top_k)

    def _query_vectors(self, queries: list[Any], embedder: Embedder | None) -> np.ndarray:
        """Return (queries, D), L2-normalised."""
        width = self.vectors.shape[1]
        check_queries(queries, width)
        if all(isinstance(part, np.ndarray) for query in queries for part in parts_of(query)):
            return query_vectors(queries, None, width, None)
        if embedder is None:
            raise ValueError("queries that are texts or images need an embedder: index.search(query, embedder)")
        if not made_by(self.model, embedder):
            raise IncompatibleIndexError(
                f"the index was made by the model {self.model['name']!r}, which is not the model {embedder.name!r} as "
                "it is now: search with that, or build the index anew"
            )
        settings = {**self.settings, **embedder.describe_vectors()}
        if any(map(images_of, queries)) and vector_kind(settings) != vector_kind(self.settings):
            raise IncompatibleIndexError(
                f"the index was made with {self.settings}, and {embedder!r} gives other vectors of images: search by "
                "texts, or with an embedder of the same precision and kind of images"
            )
        return query_vectors(queries, embedder, width, self.settings["max_num_patches"])


def nearest(queries: np.ndarray, vectors: np.ndarray, top_k: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the largest inner products, exactly, in blocks of vectors so that memory stays bounded.

    Args:
        queries: Float32 (Q, D).
        vectors: Float32 (N, D).
        top_k: How many to return; all where there are fewer.

    Returns:
        Scores, float32 (Q, K), falling, and row numbers, int64 (Q, K); of equal scores the lower row comes first.
    """
    scores = np.zeros((len(queries), 0), np.float32)
    rows = np.zeros((len(queries), 0), np.int64)
    for start in range(0, len(vectors), VECTORS_PER_BLOCK):
        block = queries @ vectors[start : start + VECTORS_PER_BLOCK].T  # (Q, block)
        block_rows = np.broadcast_to(np.arange(start, start + block.shape[1]), block.shape)
        scores, rows = np.hstack([scores, block]), np.hstack([rows, block_rows])
        if scores.shape[1] > top_k:
            best = np.argpartition(-scores, top_k - 1, axis=1)[:, :top_k]
            scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
    order = np.lexsort((rows, -scores), axis=1)
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def _existing_folder(folder: str | os.PathLike) -> Path:
    path = Path(folder)
    if path.is_file():
        raise ValueError(f"{printable(path)} is a file, not a folder: give the folder that the images are in")
    if not path.is_dir():
        raise ValueError(f"{printable(path)}: no such folder")
    return path.resolve()


def _index_folder(folder: Path, index_folder: str | os.PathLike | None, follow_links: bool) -> Path:
    where = folder / DEFAULT_INDEX_FOLDER if index_folder is None else Path(index_folder)
    if where.is_file():
        raise ValueError(f"{printable(where)} is a file: the index needs a folder of its own")
    if index_folder is None and not follow_links and where.is_symlink():
        raise ValueError(
            f"{printable(where)} is a link to {printable(where.resolve())}: if you trust it, name that folder "
            "(`--index`, index_folder=) or follow links (`--follow-links`, follow_links=True)"
        )
    return where
