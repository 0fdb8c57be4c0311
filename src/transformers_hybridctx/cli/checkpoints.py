# SPDX-License-Identifier: Apache-2.0
"""`hybridctx convert` and what undoes it or goes on from it: checkpoints in, checkpoints out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..checkpoint_names import name_that_can_be_had
from .console import print_line
from .errors import clear_errors

Source = Annotated[str, typer.Argument(help="Folder or Hub id.", show_default=False)]
Target = Annotated[Path, typer.Argument(help="Folder to write; it appears when it is complete.", show_default=False)]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a Hub id.")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; the source's own if not given.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the target.")]
Push = Annotated[str | None, typer.Option("--push-to-hub", help="Also upload to this repository (org/name).")]
Private = Annotated[bool, typer.Option("--private", help="Create that repository as a private one.")]


def convert(
    source: Source,
    target: Target,
    revision: Revision = None,
    dtype: Dtype = None,
    load_in_4bit: Annotated[
        bool, typer.Option("--load-in-4bit", help="Write the decoder's weights in 4 bits (bitsandbytes' nf4).")
    ] = False,
    fold_phi: Annotated[
        bool, typer.Option("--fold-phi", help="Leave out phi and modality embedding, where that is exact.")
    ] = False,
    render_config: Annotated[Path | None, typer.Option(help="How it draws pages: a render config of Glyph's.")] = None,
    overwrite: Overwrite = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, write nothing.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Compare logits of both on a drawn page.")] = False,
    push_to_hub: Push = None,
    private: Private = False,
) -> None:
    """Convert a checkpoint of the GLM-4V family (Glyph, GLM-4.1V, GLM-4.6V-Flash, GLM-OCR) to HybridCtx."""
    with clear_errors():
        source = name_that_can_be_had(source, "SOURCE", revision)
        from ..conversion.convert import convert_checkpoint
        from ..rendering.settings import RenderConfig

        _check_upload(push_to_hub, private)
        report = convert_checkpoint(
            source,
            target,
            revision=revision,
            dtype=dtype,
            load_in_4bit=load_in_4bit,
            fold_phi=fold_phi,
            render_config=None if render_config is None else RenderConfig.from_glyph(render_config),
            overwrite=overwrite,
            dry_run=dry_run,
            verify=verify,
        )
        _tell(report, target, dry_run)
        if not dry_run:
            _upload(target, push_to_hub, private)


def _tell(report: dict[str, Any], target: Path, dry_run: bool) -> None:
    keys = ", ".join(f"{count:,} {action}" for action, count in report["keys"].items())
    size = f"{report['num_parameters']:,} parameters, {report['num_bytes']:,} bytes, {report['dtype']}"
    print_line(f"{keys}; {size}, {report['num_shards']} shards")
    if "quantization" in report:
        print_line(f"{report['quantization']['num_weights']:,} weights in 4 bits")
    for entry in report["tensors"]:
        if entry["action"] == "dropped":
            print_line(f"dropped {entry['source']}: {entry['reason']}")
    if "verification" in report:
        found = report["verification"]
        print_line(f"logits differ by {found['max_abs_difference']:.2g} at most, of {found['max_abs_logit']:.3g}")
        if "distance_to_full_precision" in found:
            lost = found["distance_to_full_precision"]
            print_line(
                f"full precision is {lost['mean_abs_difference']:.2g} away on average, {lost['max_abs_difference']:.2g} "
                f"at most; {lost['same_next_tokens']:.0%} of the most likely next tokens are the same",
            )
    print_line("nothing was written (dry run)" if dry_run else f"checkpoint in {target}")


def _check_upload(repo_id: str | None, private: bool) -> None:
    """Raise before hours of work where nobody is logged in who could upload what comes of it, or nothing is asked to."""
    from huggingface_hub import HfApi

    if private and repo_id is None:
        raise ValueError("--private is of --push-to-hub, and nothing is uploaded: give it, too, or drop --private")
    if repo_id is not None:
        HfApi().whoami()


def _upload(folder: Path, repo_id: str | None, private: bool) -> None:
    from huggingface_hub import HfApi

    if repo_id is None:
        return
    api = HfApi()
    try:
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        commit = api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload HybridCtx checkpoint")
    except (OSError, ValueError, RuntimeError) as error:
        raise OSError(
            f"{folder} is complete, but was not uploaded ({error}); `hf upload {repo_id} {folder}` tries again"
        ) from error
    print_line(f"uploaded to {repo_id} at {commit.oid}")


def export(
    source: Source,
    target: Target,
    revision: Revision = None,
    model_type: Annotated[str | None, typer.Option(help="glm4v, glm46v or glm_ocr, where several fit.")] = None,
    dtype: Dtype = None,
    overwrite: Overwrite = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, write nothing.")] = False,
    push_to_hub: Push = None,
    private: Private = False,
) -> None:
    """Write a HybridCtx checkpoint as a plain one of the GLM-4V family, for engines that know that."""
    with clear_errors():
        source = name_that_can_be_had(source, "SOURCE", revision)
        from ..conversion.export import export_checkpoint

        _check_upload(push_to_hub, private)
        report = export_checkpoint(
            source,
            target,
            revision=revision,
            model_type=model_type,
            dtype=dtype,
            overwrite=overwrite,
            dry_run=dry_run,
        )
        _tell(report, target, dry_run)
        if not dry_run:
            _upload(target, push_to_hub, private)


def merge_lora(
    base: Annotated[str, typer.Argument(help="The HybridCtx checkpoint that was tuned.", show_default=False)],
    adapter: Annotated[Path, typer.Argument(help="Folder of the adapter.", show_default=False)],
    target: Target,
    revision: Revision = None,
    overwrite: Overwrite = False,
    push_to_hub: Push = None,
    private: Private = False,
) -> None:
    """Merge a LoRA fine-tune into full weights."""
    with clear_errors():
        base = name_that_can_be_had(base, "BASE", revision)
        from ..conversion.merge import merge_lora as merge

        _check_upload(push_to_hub, private)
        merge(base, adapter, target, revision=revision, overwrite=overwrite)
        print_line(f"checkpoint in {target}")
        _upload(target, push_to_hub, private)


def fill_card(
    card: Annotated[Path, typer.Argument(help="A model card.", show_default=False)],
    benchmark: Annotated[Path, typer.Argument(help="What `hybridctx evaluate --out` wrote.", show_default=False)],
) -> None:
    """Write a benchmark's figures into a model card: its table and its metadata."""
    with clear_errors():
        from ..conversion.model_cards import fill_benchmark_card

        for file in (card, benchmark):
            if file.is_dir():
                raise IsADirectoryError(
                    f"{file} is a folder: give a file in it, such as the table.json of a benchmark's"
                )
            if not file.is_file():
                raise FileNotFoundError(f"{file}: there is no such file")
        fill_benchmark_card(card, benchmark)
        print_line(f"figures of {benchmark} in {card}")
