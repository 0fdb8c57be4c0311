# SPDX-License-Identifier: Apache-2.0
"""Pages (rendered ones, or pictures of scanned ones) to uint8 patches. Normalisation is left to the model."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, BatchFeature, Glm4vImageProcessorPil
from transformers.image_utils import PILImageResampling, SizeDict
from transformers.models.glm4v.image_processing_pil_glm4v import smart_resize
from transformers.utils import TensorType

from .configuration_hybridctx import HybridCtxConfig
from .remote_code import TravelsWithCode


class HybridCtxImageProcessor(TravelsWithCode, Glm4vImageProcessorPil):
    r"""
    Resizes and cuts pages exactly as transformers' GLM-4V image processors do, but keeps each pixel as the one byte
    that it is: no channels of equal values, no repeated frames, no floats. [`HybridCtxModel`] folds normalisation into
    its first layer.

    Takes one page or a list of pages: uint8 arrays or tensors `[height, width]` (grey) or `[height, width, 3]`, PIL
    images, paths or URLs. Has the settings of `Glm4vImageProcessor` (`size` in pixels, `patch_size`, `merge_size`...).
    Returns:
    - `pixel_values` uint8 `[num_patches, C * patch_size**2]`, patches of one merge block beside each other. C is 1
      where all pages are grey (also where they are stored in colour), 3 otherwise.
    - `image_grid_thw` int64 `[num_pages, 3]`: 1, height and width in patches.

    `rescale_factor`, `image_mean` and `image_std` are not applied here: they are what [`HybridCtxConfig`] must state.

    Raises:
        `ValueError`: a page of no pixels, of an aspect ratio above 200, or of another dtype than uint8.
    """

    def _prepare_image_like_inputs(self, images: Any, *args: Any, **kwargs: Any) -> list[np.ndarray]:
        images = self.fetch_images(images)
        if not isinstance(images, list | tuple):
            images = list(images) if getattr(images, "ndim", 0) == 4 else [images]
        elif any(isinstance(image, list | tuple) for image in images):
            images = [image for group in images for image in group]
        return [self._read_page(index, image, **kwargs) for index, image in enumerate(images)]

    def _read_page(self, index: int, image: Any, input_data_format: str | None = None, **kwargs: Any) -> np.ndarray:
        """One page to uint8 `[1 or 3, height, width]`."""
        if isinstance(image, torch.Tensor):
            image = image.numpy()
        elif isinstance(image, Image.Image) and image.mode in ("1", "L") and "transparency" not in image.info:
            image = np.array(image.convert("L"))
        is_array = isinstance(image, np.ndarray)
        shape, dtype = (image.shape, image.dtype) if is_array else (image.size[::-1], np.uint8)
        if 0 in shape or len(shape) not in (2, 3) or (len(shape) == 3 and not {1, 3, 4} & {shape[0], shape[2]}):
            raise ValueError(
                f"Page {index} has shape {tuple(shape)}: pass [height, width] or [height, width, 3], no side zero."
            )
        if dtype != np.uint8:
            raise ValueError(f"Page {index} has dtype {dtype}: pass uint8 pixels between 0 and 255.")
        if is_array and image.ndim == 2:
            return image[None]
        if is_array and input_data_format is None:  # told by the last side first, so that tiny pages are read alike
            input_data_format = "channels_last" if shape[-1] in (1, 3, 4) else "channels_first"
        page = self.process_image(image, do_convert_rgb=True, input_data_format=input_data_format)
        return page[:1] if all(np.array_equal(page[0], channel) for channel in page[1:]) else page

    def resize(
        self,
        image: np.ndarray,
        size: SizeDict,
        resample: PILImageResampling | int | None,
        factor: int,
        temporal_factor: int,
        **kwargs: Any,
    ) -> np.ndarray:
        """As the parent, but a page that already has the size, as rendered ones do, is not copied through Pillow."""
        height, width = image.shape[-2:]
        if not (size.shortest_edge and size.longest_edge):
            raise ValueError(f"size={size} must state shortest_edge and longest_edge, the fewest and most pixels.")
        target = smart_resize(
            temporal_factor, height, width, temporal_factor, factor, size.shortest_edge, size.longest_edge
        )
        if target == (height, width):
            return image
        return super().resize(image, size, resample, factor, temporal_factor, **kwargs)

    def patchify(
        self, image: np.ndarray, patch_size: int, merge_size: int, **kwargs: Any
    ) -> tuple[np.ndarray, int, int]:
        """uint8 `[C, height, width]` to patches `[num_patches, C * patch_size**2]`, grid height and grid width."""
        channels, grid_h, grid_w = len(image), image.shape[1] // patch_size, image.shape[2] // patch_size
        blocks = image.reshape(
            channels, grid_h // merge_size, merge_size, patch_size, grid_w // merge_size, merge_size, patch_size
        )
        return blocks.transpose(1, 4, 2, 5, 0, 3, 6).reshape(grid_h * grid_w, -1), grid_h, grid_w

    def _preprocess(
        self,
        images: list[np.ndarray],
        do_resize: bool,
        size: SizeDict,
        resample: PILImageResampling | None,
        patch_size: int,
        temporal_patch_size: int,
        merge_size: int,
        return_tensors: str | TensorType | None,
        **kwargs: Any,
    ) -> BatchFeature:
        factor = patch_size * merge_size
        pages, grids = [], []
        for index, image in enumerate(images):
            height, width = image.shape[1:]
            if do_resize:
                try:
                    image = self.resize(
                        image, size=size, resample=resample, factor=factor, temporal_factor=temporal_patch_size
                    )
                except ValueError as error:
                    raise ValueError(
                        f"Page {index} of {height} x {width} pixels: {error}. Crop or split it."
                    ) from error
            elif height % factor or width % factor:
                raise ValueError(
                    f"Page {index} is {height} x {width} pixels, which must be multiples of patch_size * merge_size = "
                    f"{factor}: pass do_resize=True."
                )
            patches, grid_h, grid_w = self.patchify(image, patch_size, merge_size)
            pages.append(patches)
            grids.append([1, grid_h, grid_w])
        area = patch_size**2
        channels = max((patches.shape[1] // area for patches in pages), default=1)
        pages = [np.tile(patches, channels * area // patches.shape[1]) for patches in pages]
        pixel_values = np.concatenate(pages) if pages else np.zeros((0, area), dtype=np.uint8)
        image_grid_thw = np.array(grids, dtype=np.int64).reshape(-1, 3)
        return BatchFeature(
            {"pixel_values": pixel_values, "image_grid_thw": image_grid_thw}, tensor_type=return_tensors
        )


AutoImageProcessor.register(HybridCtxConfig, slow_image_processor_class=HybridCtxImageProcessor, exist_ok=True)

__all__ = ["HybridCtxImageProcessor"]
