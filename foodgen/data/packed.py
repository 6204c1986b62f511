"""Class folders packed once into a memory-mapped array beside them."""

import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from tqdm import tqdm

from foodgen.core import distributed
from foodgen.core.errors import DataError
from foodgen.core.files import new_array
from foodgen.core.registry import datasets
from foodgen.data.folder import Folder, read_image

FORMAT = 1
CHUNK = 4096  # images decoded at a time


@datasets.add_to_registry(name="packed")
class Packed(Folder):
    """Images from <folder>.packed/, which is made on first use and again when the folder's listing changes.

    Broken images are named and left out of the pack.
    """

    def __init__(self, folder: Path, image_size: int) -> None:
        super().__init__(folder, image_size)
        self.pack = folder.with_name(folder.name + ".packed")
        digest = f"{FORMAT}-{image_size}-{self.listing.digest()}"
        if distributed.is_main() and not self._is_current(digest):
            self._make(digest)
        distributed.barrier()
        index = json.loads((self.pack / "index.json").read_text())
        self.labels = index["labels"]
        self.array = np.load(self.pack / "images.npy", mmap_mode="r")

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.from_numpy(self.array[index].copy()), self.labels[index]

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        labels = torch.tensor([self.labels[index] for index in indices])
        return torch.from_numpy(self.array[np.asarray(indices)]), labels

    def _is_current(self, digest: str) -> bool:
        """Whether the pack is of this listing, and whole."""
        try:
            index = json.loads((self.pack / "index.json").read_text())
            array = np.load(self.pack / "images.npy", mmap_mode="r")
            expected = (len(index["labels"]), 3, self.image_size, self.image_size)
            return bool(index["digest"] == digest and (array.dtype, array.shape) == (np.uint8, expected))
        except (OSError, ValueError, KeyError, TypeError, EOFError):
            return False

    def _make(self, digest: str) -> None:
        """Decode all images under a temporary name, then put the pack in place."""
        temporary = self.pack.with_name(f"{self.pack.name}.making")
        try:
            with FileLock(self.pack.with_name(f".{self.pack.name}.lock")):
                if self._is_current(digest):  # another run has made it meanwhile
                    return
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir()
                self._write(temporary, digest)
                shutil.rmtree(self.pack, ignore_errors=True)
                temporary.replace(self.pack)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise DataError(f"{self.pack}: cannot be written ({error}); dataset.name=folder does without") from None

    def _write(self, target: Path, digest: str) -> None:
        files, size = self.listing.files, self.image_size
        shape = (len(files), 3, size, size)
        array = new_array(target / "whole.npy", np.uint8, shape)
        kept: list[int] = []
        with (
            ThreadPoolExecutor() as pool,
            tqdm(total=len(files), desc=f"packing {self.listing.folder}", disable=None) as bar,
        ):
            for start in range(0, len(files), CHUNK):
                chunk = range(start, min(start + CHUNK, len(files)))
                for index, pixels in zip(chunk, pool.map(self._try_read, [files[i] for i in chunk]), strict=True):
                    if isinstance(pixels, DataError):
                        self.note_broken(files[index], str(pixels))
                        continue
                    array[len(kept)] = pixels
                    kept.append(index)
                bar.update(len(chunk))
        if not kept:
            raise DataError(f"{self.listing.folder}: no image can be read")
        array.flush()
        _shorten(target / "whole.npy", target / "images.npy", len(kept))
        labels = [self.listing.labels[index] for index in kept]
        (target / "index.json").write_text(json.dumps({"digest": digest, "labels": labels}))

    def _try_read(self, name: str) -> np.ndarray | DataError:
        try:
            return read_image(self.listing.folder / name, self.image_size)
        except DataError as error:
            return error


def _shorten(source: Path, target: Path, length: int) -> None:
    """Rename an .npy file, without its rows from `length` on."""
    whole = np.load(source, mmap_mode="r")
    if length == len(whole):
        source.replace(target)
    else:
        np.save(target, whole[:length])
        source.unlink()
