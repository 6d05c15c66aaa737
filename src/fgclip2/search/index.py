"""ImageIndex: the vectors of a folder of images, kept up to date on disk and searched exactly."""

from __future__ import annotations

import os
import shlex
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import numpy as np

from .._imports import require
from ..checks import check_choice, check_positive_integer
from ..embedding import DenseMap, Embedder, PhraseMatch, Skipped, split_phrases
from ..embedding.phrases import Splitter
from ..embedding.reranker import CANDIDATES, RERANKERS, ImageMatch, RerankedHit, match_pairs, ordered, score_pairs
from ..errors import IncompatibleIndexError
from ..files import printable
from . import exact
from .build import IndexBuild, IndexReport, made_by, vector_kind
from .caches import APPROXIMATE, VectorCache, build_cache, cached_kinds, delete_caches
from .caches import KINDS as CACHES
from .dense_maps import KINDS, StoredMap
from .export import WRITERS
from .queries import ImageQuery, Query, check_queries, images_of, is_copy, is_query, parts_of, query_vectors
from .scan import ImageFile, UnusableFile
from .store import DAMAGE, OpenedIndex, StoredIndex, newest_rows_digest, open_index, read_index
from .verification import DamagedFile, damaged_files

DEFAULT_INDEX_FOLDER = ".fgclip2_index"


class SearchHit(NamedTuple):
    """A found image and the cosine of its vector with the query's.

    `probability` is that of a match, by the embedder's calibration; `None`: it has none for this query.
    """

    path: Path
    score: float
    probability: float | None = None


class RerankedSearchHit(NamedTuple):
    """A found image after re-ranking: what [`fgclip2.embedding.RerankedHit`] has, and the image's path.

    `probability` is that of a [`SearchHit`], of the cosine too.
    """

    path: Path
    score: float
    reranked: float
    phrases: list[PhraseMatch]
    probability: float | None = None


@dataclass
class ImageIndex:
    """The images of a folder with their vectors.

    On disk an index is a folder with `manifest.json` (model, settings, versions, what can't be used) and the vectors
    as safetensors, in blocks with path, size and modification time of each file. All of it is checked by hashes when
    it is read; a damaged block costs its rows only, with a warning. One run at a time may write an index; reading it
    needs no turn. Search is exact unless another way is asked for: every vector is compared.

    A large index is opened and searched faster by caches, see [`build_cache`]. One that has a cache of its vectors is
    opened by that alone; its blocks are read and checked when `vectors` is first used.

    With dense maps, which are off by default, re-ranking opens no picture. They are large: 256 patches of 768 values
    are 393 kB an image as `"fp16"`, or 197 kB as `"int8"` (with a scale for each patch). They lie in blocks of their
    own, of which a search reads the maps of its candidates only.

    Args:
        folder: The folder of images.
        files: The images in it, sorted by path; a list, or a sequence that reads them from a cache.
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
        index_folder: Where the index is kept.
        rows_digest: The hash that the caches of these vectors are named by; empty where there can be none.

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
    files: Sequence[ImageFile]
    vectors: np.ndarray
    model: dict[str, Any]
    settings: dict[str, Any]
    unusable: list[UnusableFile] = field(default_factory=list)
    report: IndexReport | None = None
    left_out: dict[str, int] = field(default_factory=dict)
    dense: str | None = None
    maps: Mapping[ImageFile, StoredMap] = field(default_factory=dict, repr=False)
    index_folder: Path | None = None
    rows_digest: str = ""
    _caches: dict[str, VectorCache] = field(default_factory=dict, repr=False)  # the open ones
    _opened: OpenedIndex | None = field(default=None, repr=False)  # as long as its blocks have not been read

    def __len__(self) -> int:
        return len(self.files)

    def __getattr__(self, name: str) -> Any:
        """Read the vectors of an index that was opened by a cache, when they are first used."""
        opened = self.__dict__.get("_opened")
        if name != "vectors" or opened is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        assert self.index_folder is not None
        stored = read_index(self.index_folder, opened=opened)
        assert stored is not None
        self._opened = None
        self.files, self.vectors = stored.arrays()
        if stored.rows_digest != self.rows_digest:  # without the rows of damaged blocks, which the caches have
            self.rows_digest, self._caches = stored.rows_digest, {}
        return self.vectors

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
        return cls._of(folder, where, *build.run(show_progress_bar))

    @classmethod
    def load(
        cls, folder: str | os.PathLike, index_folder: str | os.PathLike | None = None, follow_links: bool = False
    ) -> ImageIndex:
        """Read the index of a folder as it is, without looking for changes, and without waiting for a run that writes.

        All of it is checked by hashes. But if there is a cache of its present vectors, then that is opened instead, by
        its sizes: the vectors are read and checked when they are first used. [`verify_index`] checks everything.

        Raises:
            ValueError: There is no such folder, or it has no index.
            IncompatibleIndexError: The index is damaged.
        """
        folder = _existing_folder(folder)
        where = _index_folder(folder, index_folder, follow_links)
        opened = open_index(where, follow_links)
        if opened is not None:
            found = (VectorCache.open(where, kind, opened.rows_digest) for kind in CACHES)
            cache = next(filter(None, found), None)
            if cache is not None:
                index = cls._of(folder, where, opened.generation)
                index.files, index.rows_digest = cache.files, opened.rows_digest
                index._opened, index._caches = opened, {cache.kind: cache}
                del index.vectors  # until they are used
                return index
        stored = read_index(where, follow_links)
        if stored is None:
            raise _no_index(folder, index_folder)
        return cls._of(folder, where, stored)

    @classmethod
    def verify(
        cls, folder: str | os.PathLike, index_folder: str | os.PathLike | None = None, follow_links: bool = False
    ) -> list[DamagedFile]:
        """Read all of an index, dense maps and caches included, and compare it with its hashes; change nothing.

        Vectors are compared whenever they are read: by [`build`], by [`load`] where there is no cache, and before a
        cache is made of them. Dense maps are compared one by one as they are used, caches by this alone.

        Returns:
            The damaged files, each with the reason and what to do; none if all is as it was written.

        Raises:
            ValueError: There is no such folder, or it has no index.
            IncompatibleIndexError: The manifest is damaged, so that the index has to be rebuilt.
        """
        folder = _existing_folder(folder)
        found = damaged_files(_index_folder(folder, index_folder, follow_links), follow_links)
        if found is None:
            raise _no_index(folder, index_folder)
        return found

    @classmethod
    def _of(cls, folder: Path, where: Path, stored: StoredIndex, report: IndexReport | None = None) -> ImageIndex:
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
            where,
            stored.rows_digest if stored.blocks else "",
        )

    def build_cache(self, kind: str = "hnsw", show_progress_bar: bool | None = None) -> None:
        """Make a cache beside the index, for fast opening and search; without it search is as ever.

        It is made from the vectors that the index has now, with FAISS and in float16, unless it is there already. When
        an update changes them, the cache is passed over until it is made anew; it may be deleted at any time, as the
        folder `caches` in that of the index. A cache is trusted as code is: use none that someone else has made.

        Args:
            kind: `"hnsw"`, a graph: the fastest search, a slow build; `"ivf"`, lists around centres: in between;
                `"exact"`: every vector is compared, as without it, in half the memory.
            show_progress_bar: As in [`Embedder`].

        Raises:
            ImportError: FAISS is not installed.
            ValueError: `kind` has another value, or the index is empty.
            IncompatibleIndexError: An update has changed the index since it was loaded.
            LockedIndexError: Another run makes a cache of this index.
            OSError: The cache can't be written.
        """
        check_choice("kind", kind, CACHES)
        if not len(self) or self.index_folder is None:
            raise ValueError(
                f"{printable(self.folder)} has no images in its index, so there is nothing to make a cache of"
            )
        if newest_rows_digest(self.index_folder) != self.rows_digest:
            raise IncompatibleIndexError(
                f"the index {printable(self.index_folder)} is not as it was when it was loaded, or has damaged blocks: "
                "bring it up to date (`fgclip2 index`, ImageIndex.build), then make its cache"
            )
        build_cache(self.index_folder, kind, self.rows_digest, self.files, self.vectors, show_progress_bar)

    @property
    def caches(self) -> list[str]:
        """The kinds of the caches that can be used: there, whole, and of the vectors that the index has now."""
        return [kind for kind in CACHES if self._cache(kind)]

    @property
    def stale_caches(self) -> list[str]:
        """The kinds of the caches that are there, but of former vectors, or damaged; empty without FAISS."""
        return [kind for kind in cached_kinds(self.index_folder) if not self._cache(kind)] if self.index_folder else []

    def delete_caches(self) -> None:
        """Delete all caches of the index.

        Raises:
            LockedIndexError: Another run makes one.
        """
        self._caches = {}
        if self.index_folder is not None:
            delete_caches(self.index_folder)

    def export(self, kind: str, output: str | os.PathLike) -> None:
        """Write the vectors, ids and paths of the index into a new folder, for another library.

        Args:
            kind: `"usearch"`: a graph in float16, `images.usearch`, whose keys are the numbers of the lines of
                `images.jsonl`, from 0 on; or `"lancedb"`: a database with the table `images`.
            output: The folder, which must be new or empty. An id is the path of an image below the index's folder.

        Raises:
            ImportError: The library is not installed.
            ValueError: `kind` has another value, or there is something in the folder.
        """
        check_choice("kind", kind, WRITERS)
        vectors = self.vectors
        ids = [file.path for file in self.files]
        WRITERS[kind](Path(output), ids, [str(self.folder / entry) for entry in ids], vectors)

    def _cache(self, kind: str) -> VectorCache | None:
        if kind not in self._caches and self.index_folder is not None:
            cache = VectorCache.open(self.index_folder, kind, self.rows_digest)
            if cache is not None:
                self._caches[kind] = cache
        return self._caches.get(kind)

    def _nearest(
        self, queries: np.ndarray, top_k: int, approximate: bool, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return scores and rows, (queries, K) each; see [`fgclip2.search.nearest`]."""
        cache = None
        if approximate:
            require("faiss", "search")
            cache = next(filter(None, map(self._cache, APPROXIMATE)), None)
            if cache is None:
                warnings.warn(
                    "the index has no cache of its present images for approximate search, so all were compared: make "
                    "it by `fgclip2 index FOLDER --cache hnsw`, or index.build_cache('hnsw')",
                    stacklevel=4,
                )
        elif self._opened is not None:
            cache = next(iter(self._caches.values()), None)  # by which it was opened: the vectors are not in memory
        if cache is None:
            return exact.nearest(queries, self.vectors, top_k, allowed)
        return cache.nearest(queries, top_k, allowed, exactly=not approximate)

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
        approximate: bool = False,
        allowed: np.ndarray | None = None,
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
        approximate: bool = False,
        allowed: np.ndarray | None = None,
    ) -> list[list[RerankedSearchHit]]: ...

    @overload
    def search(  # type: ignore[overload-overlap]
        self,
        query: Query,
        embedder: Embedder | None = None,
        top_k: int = 10,
        *,
        approximate: bool = False,
        allowed: np.ndarray | None = None,
    ) -> list[SearchHit]: ...

    @overload
    def search(
        self,
        query: Sequence[Query],
        embedder: Embedder | None = None,
        top_k: int = 10,
        *,
        approximate: bool = False,
        allowed: np.ndarray | None = None,
    ) -> list[list[SearchHit]]: ...

    @overload
    def search(  # type: ignore[overload-overlap]
        self,
        query: None = None,
        embedder: Embedder | None = None,
        top_k: int = 10,
        *,
        image: ImageQuery,
        approximate: bool = False,
        allowed: np.ndarray | None = None,
    ) -> list[SearchHit]: ...

    @overload
    def search(
        self,
        query: None = None,
        embedder: Embedder | None = None,
        top_k: int = 10,
        *,
        image: Sequence[ImageQuery],
        approximate: bool = False,
        allowed: np.ndarray | None = None,
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
        approximate: bool = False,
        allowed: np.ndarray | None = None,
    ) -> list[Any]:
        """Find the images nearest to a query.

        An image that is searched by, alone, by a region or in a combined query, is left out of the answers, and so are
        links to it and files of the same content; a search by its vector finds them all.

        Hits of texts have a probability where the embedder has a calibration for their head, language and the index's
        patch budget. Unless `embedder.prevalence` says else, one image of the index is expected to match.

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
            approximate: Compare few of the vectors, by a cache of kind `"hnsw"` or `"ivf"`; see [`build_cache`]. Where
                none is there for the present vectors, all are compared, with a warning.
            allowed: Bool (images,) in the order of `files`: which images may be found; `None`: all.

        Returns:
            For one query its list of [`SearchHit`], best first; for a list of queries a list of such lists. With
            `rerank` the hits are [`RerankedSearchHit`].

        Raises:
            ValueError: The query is empty or can't be used, `top_k` is below 1, `rerank` has another value, no text to
                work with, or a model without dense features or without scores of pairs, or `split` is no function or
                gives no phrases, or `allowed` has another shape or type.
            ImportError: `approximate` without FAISS.
            IncompatibleIndexError: The embedder is not the model that made the index.
        """
        check_positive_integer("top_k", top_k)
        check_positive_integer("candidates", candidates)
        check_choice("rerank", rerank, (None, *RERANKERS))
        if allowed is not None and (np.shape(allowed), np.asarray(allowed).dtype) != ((len(self),), bool):
            raise ValueError(
                f"allowed must be an array of {len(self)} booleans, one for each of the index's files, got shape "
                f"{np.shape(allowed)} of {np.asarray(allowed).dtype}"
            )
        find = partial(self._nearest, approximate=approximate, allowed=allowed)
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
            scores, rows = find(vectors, max(top_k, candidates))  # (texts, candidates) each
            reranked = self._reranked(rerank, queries, scores, rows, embedder, batch_size, split)
            reranked = self._with_probabilities(queries, [hits[:top_k] for hits in reranked], embedder)
            return reranked[0] if single else reranked
        found = zip(*find(vectors, top_k + 1), strict=True)  # one more, for an image may find itself
        hits = [
            self._without_copies(one, partial(find, vector[None]), self._hits(*rows), top_k)
            for one, vector, rows in zip(queries, vectors, found, strict=True)
        ]
        hits = self._with_probabilities(queries, hits, embedder)
        return hits[0] if single else hits

    def _with_probabilities(
        self, queries: list[Any], results: list[list[Any]], embedder: Embedder | None
    ) -> list[list[Any]]:
        """Return the hits, those of a text with the probability that they match it, where there is a curve for it."""
        if embedder is None or embedder.calibration is None:
            return results
        options: Any = {"max_num_patches": self.settings["max_num_patches"], "candidates": max(1, len(self))}
        with_probabilities = []
        for query, hits in zip(queries, results, strict=True):
            if isinstance(query, str) and hits:
                cosines = np.array([[hit.score] for hit in hits])  # (hits, 1)
                found = embedder.match_probabilities(cosines, [query], **options)[:, 0]
                if not np.isnan(found).any():
                    hits = [hit._replace(probability=float(its)) for hit, its in zip(hits, found, strict=True)]
            with_probabilities.append(hits)
        return with_probabilities

    def _reranked(
        self,
        rerank: str,
        texts: list[str],
        scores: np.ndarray,
        rows: np.ndarray,
        embedder: Embedder,
        batch_size: int,
        split: Splitter,
    ) -> list[list[RerankedSearchHit]]:
        """Return the nearest images of each text, (texts, candidates), in their new order; each is read once."""
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

    def _without_copies(
        self, query: Query, find: Callable[[int], Any], hits: list[SearchHit], top_k: int
    ) -> list[SearchHit]:
        """Leave the query image, links to it and its copies out of its hits, and look for others in their place."""
        images = images_of(query)
        if not images:
            return hits[:top_k]
        others = [hit for hit in hits if not any(is_copy(hit.path, image) for image in images)]
        if len(others) >= top_k:
            return others[:top_k]
        scores, rows = find(2 * len(hits))  # (1, K) each
        if len(rows[0]) == len(hits):  # there are no more
            return others
        return self._without_copies(query, find, self._hits(scores[0], rows[0]), top_k)

    def _query_vectors(self, queries: list[Any], embedder: Embedder | None) -> np.ndarray:
        """Return (queries, D), L2-normalised."""
        width = self.model["embedding_size"]
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


def _existing_folder(folder: str | os.PathLike) -> Path:
    path = Path(folder)
    if path.is_file():
        raise ValueError(f"{printable(path)} is a file, not a folder: give the folder that the images are in")
    if not path.is_dir():
        raise ValueError(f"{printable(path)}: no such folder")
    return path.resolve()


def _no_index(folder: Path, index_folder: str | os.PathLike | None) -> ValueError:
    place = ["--index", os.fspath(index_folder)] if index_folder else []
    command = printable(shlex.join(["fgclip2", "index", str(folder), *place]))
    return ValueError(f"{printable(folder)} has no index: make it by ImageIndex.build, or by `{command}`")


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
