# SPDX-License-Identifier: Apache-2.0
"""`pipeline("long-doc-qa")`: a document and questions in; answers out, each with the places that support it."""

from __future__ import annotations

import os
import warnings
from typing import Any

from transformers import AutoModelForImageTextToText, GenerationConfig
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import Pipeline
from transformers.utils import logging

from .answering.engine import AnsweringEngine, GeneratedAnswer
from .answering.generate_options import GENERATE_ARGUMENTS, GenerateOptions
from .answering.generate_parameters import check_generate_parameters
from .answering.results import LongDocAnswer, result_of
from .bundled_checkpoint import BUNDLED_CHECKPOINT
from .caching.document_cache import DocumentCache
from .configuration_hybridctx import HybridCtxConfig
from .documents.several_files import names_files, read_documents
from .grounding.grounded import Grounding
from .modules.loading import loaded_with
from .modules.quantization import computes_natively
from .planning.budget import ContextBudget
from .planning.knobs import real_number, shown
from .planning.paged_document import PagedDocument
from .planning.policies.attention import AttentionPolicy
from .planning.policies.base import TextPolicy
from .planning.policies.registry import resolve_text_policy
from .processing_hybridctx import HybridCtxProcessor
from .remote_code import TravelsWithCode

TASK = "long-doc-qa"
LOOKED_AT = 4
"""Passages that `look_closer` appends, unless it says otherwise."""


class LongDocQAPipeline(TravelsWithCode, Pipeline):
    """
    Long-document question answering.

    ```python
    >>> import transformers_hybridctx
    >>> from transformers import pipeline

    >>> pipe = pipeline("long-doc-qa")  # the checkpoint inside the package; or model="org/name"
    >>> pipe(question="What is the access code?", document="report.pdf")
    {'answer': ..., 'score': ..., 'evidence': [...], 'usage': {...}, 'plan': ...}
    ```

    A document is a text, a file (text, Markdown, HTML, PDF, picture), a list of page pictures, what
    [`LongDocQAPipeline.lay_out`] returned, or a [`DocumentCache`] from [`LongDocQAPipeline.read`]. A file is named by a
    `Path`, or by a string of one line that names an existing file or is written like a file's name ("report.pdf"); a
    folder, or a list of such names, is one document. Any other string is the text itself. **A text from someone whom you
    do not trust with your files goes into `text=`**, which never names one. (`processor(document=...)` reads no files:
    there, every string is the text.)

    Generation parameters, such as `max_new_tokens` or `num_beams`, may be given to the pipeline or to a call.

    Threads may share a pipeline, its readings and its model: answers are those of one thread. The model works for one
    thread at a time; planning, drawing and finding evidence go on meanwhile.

    On a CPU that has no instructions for a checkpoint's half precision, the model computes in float32 unless `dtype`
    is given (`pipeline(..., dtype=torch.bfloat16)`); that holds for a model object passed with no `dtype`, too.

    Args:
        model ([`HybridCtxForCausalLM`]): the model; an adapter around it is as good.
        processor ([`HybridCtxProcessor`], *optional*): the one of the model's checkpoint unless given.
        kwargs: as in every pipeline: `device`, `dtype`, generation parameters and what `__call__` takes.
    """

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_video_processor = False
    _pipeline_calls_generate = True
    _default_generation_config = GenerationConfig(max_new_tokens=256)

    processor: HybridCtxProcessor

    def __init__(self, model: Any, processor: Any = None, **kwargs: Any) -> None:
        if model.config.model_type != HybridCtxConfig.model_type:
            raise ValueError(
                f"{TASK} needs a HybridCtxForCausalLM, not {type(model).__name__} (model_type "
                f"{model.config.model_type!r}); convert the checkpoint first"
            )
        if processor is None:
            if not model.config._name_or_path:
                raise ValueError(
                    f"{TASK} needs a processor: the model was not loaded from a checkpoint; give processor="
                )
            processor = HybridCtxProcessor.from_pretrained(model.config._name_or_path, **loaded_with(model))
        if not isinstance(processor, HybridCtxProcessor):
            processor = _of_this_copy(processor)
        dtype_is_given = kwargs.get("dtype", kwargs.get("torch_dtype")) != "auto"  # "auto" is pipeline()'s own default
        kwargs.setdefault("tokenizer", processor.tokenizer)  # for its padding token
        # pipeline() hands the model's dtype to every loader, and a tokenizer would write it to its own file
        processor.tokenizer.init_kwargs.pop("dtype", None)
        super().__init__(model=model, processor=processor, **kwargs)
        if not dtype_is_given and self.device.type == "cpu" and not _computes_natively(self.model):
            self.model.float()

    def _sanitize_parameters(
        self,
        budget: ContextBudget | dict[str, Any] | None = None,
        text_policy: str | dict[str, Any] | TextPolicy | None = None,
        fusion_order: str | None = None,
        look_closer: bool | dict[str, Any] | None = None,
        system: str | None = None,
        history: list[tuple[str, str]] | None = None,
        answer_start: str | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
        file_options: dict[str, Any] | None = None,
        return_pages: bool | None = None,
        repair: bool | None = None,
        abstain: bool | float | None = None,
        generate_kwargs: dict[str, Any] | None = None,
        **generation_parameters: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        held = {}  # None is a choice, too: not held, whatever the checkpoint's default
        if "grounding" in generation_parameters:
            own = self.processor.default_grounding
            held = {"grounding": Grounding.of(generation_parameters.pop("grounding"), own)}
        if unknown := sorted(generation_parameters.keys() - GENERATE_ARGUMENTS):
            raise TypeError(
                f"unknown arguments for {TASK}: {', '.join(unknown)}; it takes question, document, text, budget, "
                "text_policy, fusion_order, look_closer, system, history, answer_start, chat_template_kwargs, "
                "file_options, grounding, repair, abstain, return_pages, generation parameters, and others for generate "
                "in generate_kwargs"
            )
        kinds = {"system": str, "answer_start": str, "chat_template_kwargs": dict, "file_options": dict}
        kinds["generate_kwargs"] = dict
        values = (system, answer_start, chat_template_kwargs, file_options, generate_kwargs)
        for (name, kind), value in zip(kinds.items(), values, strict=True):
            if value is not None and not isinstance(value, kind):
                raise TypeError(f"{name} is a {kind.__name__}, not {type(value).__name__}: {shown(value)}")
        check_generate_parameters({**generation_parameters, **(generate_kwargs or {})})
        given = {
            "budget": None if budget is None else ContextBudget.of(budget),
            "text_policy": None if text_policy is None else resolve_text_policy(text_policy),
            "fusion_order": fusion_order,
            "system": system,
            "history": history or None,
            "answer_start": answer_start or None,
            "chat_template_kwargs": chat_template_kwargs,
            "file_options": file_options,
        }
        others = {"text_policy": text_policy, "fusion_order": fusion_order}
        preprocess: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if look_closer is not None or any(value is not None for value in others.values()):
            preprocess["look_closer"] = _closer_look(look_closer, others)
        if abstain is not None and not isinstance(abstain, bool):
            abstain = real_number("abstain", abstain, 0, 1, "True, False, or the confidence below which not to answer")
        choices = {"return_pages": return_pages, "repair": repair, "abstain": abstain}
        postprocess = {name: value for name, value in choices.items() if value is not None}
        return preprocess, {**generation_parameters, **(generate_kwargs or {}), **held}, postprocess

    def __call__(
        self, inputs: Any = None, *, question: Any = None, document: Any = None, text: str | None = None, **kwargs: Any
    ) -> Any:
        """
        Answer one question, or several, about a document.

        Several questions share one layout of the document and, where their plans agree on the scale of its pages, one
        reading of all that their prompts begin with alike.

        Args:
            inputs: `{"question": ..., "document": ...}` (or `"text"`) instead of the arguments, or a list of these.
            question (`str` or list of `str`): what is asked.
            document: see [`LongDocQAPipeline`].
            text (`str`, *optional*): in place of `document`: the document's text, never the name of a file.
            budget ([`ContextBudget`] or dict, *optional*): how many tokens, and what they go to.
            text_policy (`str`, dict or [`TextPolicy`], *optional*): what is copied as exact tokens.
            fusion_order (`str`, *optional*): `"pages_first"`, `"tokens_first"` or `"tokens_last"` (behind the question).
            look_closer (`bool` or `dict`, *optional*): once the question is read, the passages under the visual tokens
                that it attends to are appended as tokens, and the answer goes on from there: the policy `attention`
                with `"tokens_last"`, and no second pass over the pages. A dict: knobs of that policy.
            system (`str`, *optional*): a system message, which comes before the document.
            history (list of `(question, answer)`, *optional*): what was said before about this document.
            answer_start (`str`, *optional*): words with which the answer begins; `answer` is what goes on from them.
            chat_template_kwargs (`dict`, *optional*): passed to the chat template, such as `{"enable_thinking": False}`.
            file_options (`dict`, *optional*): how files are read, as in [`read_document_file`]: `{"layout": "source"}`.
            batch_size (`int`, *optional*): questions that are answered at a time; 1 unless given.
            grounding (`str` or dict, *optional*): how the answer is held to the document as it is generated: `"quote"`,
                `"strings"`, or a dict that says where the quotation is ([`Grounding.of`]); `"none"` or None: not held.
                The checkpoint's own choice (`processor.default_grounding`) unless given, and its form of `"quote"`.
            repair (`bool`, *optional*): put the document's own string into `checked` where exactly one is near.
            abstain (`bool` or `float`, *optional*): `checked` is None where nothing in the document supports the answer,
                or `confidence` is below a half, or below the number given.
            return_pages (`bool`, *optional*): also return pictures of the evidence's pages with it marked, as
                `"pages"` `{page: PIL.Image}`.
            streamer, logits_processor, stopping_criteria (*optional*): as in `generate`, like all generation parameters.
            generate_kwargs (`dict`, *optional*): for `generate`, beside generation parameters like `max_new_tokens`.

        Returns:
            [`LongDocAnswer`], a `dict`, or for a list of questions a list of them: `answer`, what the model says;
            `support`, how that stands to the document (`"verbatim"`, `"near"`, `"absent"`, `"unchecked"` or `"cut
            off"`), and each string of it that matters; `checked`, the answer as it may be used; `evidence`, a list of
            `{"page", "start", "end", "box", "text"}`; and what [`LongDocAnswer`] lists beside these.

        Raises:
            ContextBudgetError, ValueError, TypeError, OSError: before anything is generated, for any of the questions.

        Warns:
            UserWarning: an answer was cut off before it began; the chat template does not know a `chat_template_kwargs`.
        """
        if isinstance(inputs, (list, tuple)):
            requests = logging.tqdm(inputs, desc="requests", disable=len(inputs) < 2)
            return [self(one, question=question, document=document, text=text, **kwargs) for one in requests]
        if inputs is not None:
            if not isinstance(inputs, dict) or inputs.keys() - {"question", "document", "text"}:
                raise ValueError(
                    f'give question= and document=, or {{"question": ..., "document": ...}}, not {shown(inputs)}'
                )
            question = inputs.get("question", question)
            document, text = inputs.get("document", document), inputs.get("text", text)
        if question is None:
            raise ValueError("question= is missing: give a question and a document")
        if document is None and text is None:
            raise ValueError("document= is missing: give a question and a document, or its text as text=")
        questions = _checked_questions(question)
        batch_size = kwargs.pop("batch_size", None)
        batch_size = self._batch_size if batch_size is None else batch_size
        preprocess, forward, postprocess = self._sanitize_parameters(**kwargs)
        postprocess = {**self._postprocess_params, **postprocess}
        options = self._generate_options({**self._forward_params, **forward}, 1 if batch_size is None else batch_size)
        asked = {"questions": questions, "document": document, "text": text}
        prepared = self.preprocess(asked, **{**self._preprocess_params, **preprocess})
        generated = self.forward({**prepared, "options": options})["answers"]
        answers = [self.postprocess(one, **postprocess) for one in generated]
        return answers[0] if isinstance(question, str) else answers

    @property
    def engine(self) -> AnsweringEngine:
        """What answers, without files and results' forms; for servers and loops of one's own."""
        return AnsweringEngine(self.model, self.processor)

    def lay_out(
        self, document: Any = None, *, text: str | None = None, file_options: dict[str, Any] | None = None
    ) -> PagedDocument:
        """The document laid out, without a model's work: files are read and text is typeset only once."""
        if text is not None:
            if document is not None:
                raise ValueError("give document= or text=, not both")
            if not isinstance(text, str):
                raise TypeError(f"text= is a string, not {type(text).__name__}: {shown(text)}")
            document = text
        elif names_files(document):
            sources = document if isinstance(document, (list, tuple)) else [document]
            document = read_documents(sources, **(file_options or {}))
        return self.processor.read_document(document)

    def read(
        self,
        document: Any = None,
        *,
        text: str | None = None,
        file_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> DocumentCache:
        """
        Let the model read the document, for any number of questions: each then costs its own tokens only.

        Args:
            document, text, file_options: what a call takes.
            options: `budget`, `text_policy`, `fusion_order`, `system`, `chat_template_kwargs`, `question_tokens` and
                `prefill_chunk_size`, as in [`DocumentCache.read`].
        """
        chunk_size = self._generate_options({}).get("prefill_chunk_size")
        defaults = {**self._preprocess_params, "prefill_chunk_size": chunk_size}
        own = defaults.pop("file_options", None)
        _take_closer_look(defaults)
        laid_out = self.lay_out(document, text=text, file_options=own if file_options is None else file_options)
        with self.device_placement():
            return self.engine.read(laid_out, **{**defaults, **options})

    def preprocess(self, input_: dict[str, Any], **context: Any) -> dict[str, Any]:
        """The document at hand, and what is asked about it; each question is planned where the document is known."""
        template = str(self.processor.chat_template)
        for name in context.get("chat_template_kwargs", ()):
            if name not in template:
                warnings.warn(
                    f"the checkpoint's chat template does not know {name!r}: chat_template_kwargs changes nothing by it",
                    stacklevel=3,
                )
        file_options = context.pop("file_options", None)
        _take_closer_look(context)
        document = input_["document"]
        if not isinstance(document, DocumentCache) or input_.get("text") is not None:
            document = self.lay_out(document, text=input_.get("text"), file_options=file_options)
        return {"document": document, "questions": input_["questions"], "context": context}

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, list[GeneratedAnswer]]:
        document, questions = model_inputs["document"], model_inputs["questions"]
        return {"answers": self.engine.answer(document, questions, model_inputs["options"], **model_inputs["context"])}

    def _generate_options(self, given: dict[str, Any], batch_size: int = 1) -> GenerateOptions:
        parameters = {name: value for name, value in given.items() if name != "grounding"}
        parameters = self._prepare_generate_kwargs(parameters)
        is_default = "grounding" not in given
        grounding = self.processor.default_grounding if is_default else given["grounding"]
        return GenerateOptions(self.model, parameters, batch_size, grounding, is_default)

    def postprocess(self, model_outputs: GeneratedAnswer, **options: Any) -> LongDocAnswer:
        """The answer as text, how it stands to the document, and where."""
        return result_of(model_outputs, self.processor.tokenizer, **options)

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Model and processor, its fonts included: a folder for `pipeline("long-doc-qa", model=save_directory)`.

        The base class would leave the processor out, and write this package's code and default model into the folder.
        """
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(
            save_directory, **{name: kwargs[name] for name in _HUB_ARGUMENTS & kwargs.keys()}
        )


def _closer_look(look_closer: Any, others: dict[str, Any]) -> TextPolicy | None:
    """The policy that `look_closer` stands for; None where what is copied stands in its usual place."""
    if not look_closer and not isinstance(look_closer, dict):
        return None
    if look_closer is not True and not isinstance(look_closer, dict):
        raise TypeError(f"look_closer is True, False or a dict of knobs of 'attention', not {shown(look_closer)}")
    for name, value in others.items():
        if value is not None:
            raise ValueError(
                f"look_closer copies what the model attends to, behind the question, and {name}={shown(value)} says "
                "otherwise: drop one of them"
            )
    knobs = {} if look_closer is True else look_closer
    return resolve_text_policy({"top_k": LOOKED_AT, **knobs, "name": AttentionPolicy.name})


def _take_closer_look(context: dict[str, Any]) -> None:
    if (policy := context.pop("look_closer", None)) is not None:
        context |= {"text_policy": policy, "fusion_order": "tokens_last"}


def _of_this_copy(processor: Any) -> HybridCtxProcessor:
    """The same processor, of this module's classes.

    Code that travels with a local folder is imported anew for each class that is loaded from there.
    """
    if type(processor).__name__ != HybridCtxProcessor.__name__:
        raise ValueError(
            f"{TASK} needs a HybridCtxProcessor, not {type(processor).__name__}; convert the checkpoint first"
        )
    return HybridCtxProcessor(
        processor.image_processor,
        processor.tokenizer,
        chat_template=processor.chat_template,
        render_config=processor.render_config.to_dict(),
        default_budget=processor.default_budget,
        default_text_policy=processor.default_text_policy,
        fusion_order=processor.fusion_order,
        default_grounding=processor.default_grounding,
    )


def _computes_natively(model: Any) -> bool:
    """Whether this CPU has instructions for the model's type, or the type is not ours to change."""
    if getattr(model, "is_quantized", False) or len(getattr(model, "hf_device_map", None) or ()) > 1:
        return True  # bitsandbytes' own affair; accelerate moves parts of it about
    return computes_natively(model.dtype)


def _checked_questions(question: Any) -> list[str]:
    questions = [question] if isinstance(question, str) else question
    if not isinstance(questions, (list, tuple)):
        raise TypeError(
            f"a question is a string, or a list of strings, not {type(question).__name__}: {shown(question)}"
        )
    if not questions:
        raise ValueError("question=[] asks nothing: give one question or more")
    for one in questions:
        if not isinstance(one, str):
            raise TypeError(f"a question is a string, not {type(one).__name__}: {shown(one)}")
        if not one.strip():
            raise ValueError(f"empty question {one!r}: say what is to be found in the document")
    return list(questions)


_HUB_ARGUMENTS = frozenset(("push_to_hub", "repo_id", "commit_message", "private", "token", "revision", "create_pr"))


def _says_something(record: Any) -> bool:
    """False for transformers' advice to name a model and a revision: the package's version pins the bundled one."""
    return not record.getMessage().startswith(f"No model was supplied, defaulted to {BUNDLED_CHECKPOINT} ")


logging.get_logger("transformers.pipelines").addFilter(_says_something)
PIPELINE_REGISTRY.register_pipeline(
    TASK,
    pipeline_class=LongDocQAPipeline,
    pt_model=AutoModelForImageTextToText,
    default={"model": (str(BUNDLED_CHECKPOINT), None)},
    type="multimodal",
)

__all__ = ["BUNDLED_CHECKPOINT", "LongDocQAPipeline"]
