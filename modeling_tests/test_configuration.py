# SPDX-License-Identifier: Apache-2.0
"""HybridCtxConfig: which towers it names, what it keeps, what it refuses."""

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, Glm4vConfig, Glm4vImageProcessorPil, GlmOcrConfig

from transformers_hybridctx.configuration_hybridctx import HybridCtxConfig


def test_defaults_are_those_of_glm4v():
    ours, theirs = HybridCtxConfig(), Glm4vConfig()
    for name in ("image_token_id", "video_token_id", "image_start_token_id", "image_end_token_id"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.vision_config.to_dict() == theirs.vision_config.to_dict()
    assert ours.text_config.to_dict() == theirs.text_config.to_dict()
    assert (ours.fusion_order, ours.phi, ours.modality_embedding) == ("pages_first", "identity", False)


def test_default_normalisation_is_that_of_the_image_processor():
    config, processor = HybridCtxConfig(), Glm4vImageProcessorPil()
    assert list(config.image_mean) == list(processor.image_mean)
    assert list(config.image_std) == list(processor.image_std)
    assert config.rescale_factor == processor.rescale_factor


@pytest.mark.parametrize("family", [Glm4vConfig, GlmOcrConfig])
@pytest.mark.parametrize("as_dict", [True, False])
def test_towers_are_of_the_family_that_they_name(family, as_dict):
    text_config = family().text_config
    vision_config = family(vision_config={"out_hidden_size": text_config.hidden_size}).vision_config
    towers = {"text_config": text_config, "vision_config": vision_config}
    config = HybridCtxConfig(**{name: tower.to_dict() if as_dict else tower for name, tower in towers.items()})
    for name, tower in towers.items():
        assert type(getattr(config, name)) is type(tower)


def test_saved_config_comes_back_through_the_auto_class(tmp_path):
    config = HybridCtxConfig(
        text_config=GlmOcrConfig().text_config,
        vision_config=GlmOcrConfig(vision_config={"out_hidden_size": 1024}).vision_config,
        fusion_order="tokens_first",
        phi="residual_adapter",
        phi_bottleneck=32,
        modality_embedding=True,
        image_mean=[0.5, 0.5, 0.5],
        vision_batch_bytes=100_000,
    )
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is HybridCtxConfig
    assert loaded.to_dict() | {"_name_or_path": ""} == config.to_dict() | {"_name_or_path": ""}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fusion_order": "shuffled"}, "fusion_order.*pages_first.*tokens_first.*shuffled"),
        ({"phi": "linear"}, "phi.*identity.*residual_adapter.*linear"),
        ({"phi_bottleneck": 0}, "phi_bottleneck=0 must be 1 or more"),
        ({"vision_batch_bytes": 0}, "vision_batch_bytes=0 must be 1 or more"),
        ({"image_mean": [0.5]}, r"image_mean=\[0.5\] has 1 values.*3 channels"),
        ({"image_std": [0.5, 0.0, 0.5]}, r"image_std=\[0.5, 0.0, 0.5\] must be positive"),
        ({"vision_config": {"out_hidden_size": 64}}, "out_hidden_size=64 must equal text_config.hidden_size=4096"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(StrictDataclassError, match=f"(?s){message}"):
        HybridCtxConfig(**arguments)
