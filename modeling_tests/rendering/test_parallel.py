# SPDX-License-Identifier: Apache-2.0
"""Several processes draw what one draws, byte by byte and in order."""

import ast
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import transformers_hybridctx
from transformers_hybridctx.remote_code import travelling_code
from transformers_hybridctx.rendering.rasterizing import PageRenderer
from transformers_hybridctx.rendering.settings import RenderConfig

CONFIG = RenderConfig(page_width=200, page_height=100, newline_markup=" \\n ", newline_color="#FF0000")
TEXTS = [f"Document {number}: naïve e\u0301 سلام \x00 中文 – {'word ' * (90 * number)}\nend\n" for number in range(7)]


def digest(pages):
    total = hashlib.sha256()
    for page in pages:
        total.update(repr((page.shape, page.dtype)).encode() + page.tobytes())
    return total.hexdigest()


def test_documents_are_the_same_with_any_number_of_workers():
    renderer = PageRenderer(CONFIG)
    alone = list(renderer.render_documents(TEXTS, 1.5))
    together = list(PageRenderer(CONFIG).render_documents(iter(TEXTS), 1.5, num_workers=2))
    assert [digest(document.pages) for document in alone] == [digest(document.pages) for document in together]
    for one, other, text in zip(alone, together, TEXTS, strict=True):
        assert other.text == text
        assert list(one.lines) == list(other.lines)
        assert one.undrawable == other.undrawable
        assert one.boxes(3, len(text)) == other.boxes(3, len(text))
        assert other.scale == 1.5


def test_pages_are_the_same_with_any_number_of_workers():
    renderer = PageRenderer(CONFIG)
    typeset = renderer.typeset("".join(TEXTS) * 2)
    assert typeset.num_pages > 16
    assert digest(renderer.draw_pages(typeset)) == digest(renderer.draw_pages(typeset, num_workers=2))


@pytest.mark.parametrize("num_workers", [0, -1, 1.5, True])
def test_a_number_of_workers_that_cannot_be_is_refused(num_workers):
    with pytest.raises(ValueError, match=r"num_workers=.* must be a whole number of at least 1"):
        next(PageRenderer(CONFIG).render_documents(TEXTS, num_workers=num_workers))


def test_a_mistake_in_one_document_reaches_the_caller():
    documents = PageRenderer(CONFIG).render_documents(["word", " "], num_workers=2)
    assert next(documents).num_pages == 1
    with pytest.raises(ValueError, match="empty document"):
        next(documents)


def test_no_documents_and_fewer_documents_than_workers():
    assert list(PageRenderer(CONFIG).render_documents([], num_workers=2)) == []
    [document] = PageRenderer(CONFIG).render_documents(["word"], num_workers=3)
    assert document.num_pages == 1


_SCRIPT = """
import sys
sys.path.append(sys.argv[1])
from transformers_modules.org.abc123.rendering_rasterizing import PageRenderer
from transformers_modules.org.abc123.rendering_settings import RenderConfig
{guard}
    renderer = PageRenderer(RenderConfig(font_path=sys.argv[2]))
    texts = ["word " * 3000 + str(number) for number in range(6)]
    for one, other in zip(renderer.render_documents(texts, num_workers=2), texts):
        assert one.text == other and all((a == b).all() for a, b in zip(one.pages, renderer.render(other).pages))
    assert "transformers_hybridctx" not in sys.modules
    print("same")
"""


@pytest.mark.parametrize("guarded", [True, False])
def test_code_that_came_from_the_hub_draws_with_processes_too(guarded, tmp_path):
    package = Path(transformers_hybridctx.__file__).parent
    folder = tmp_path / "transformers_modules" / "org" / "abc123"
    folder.mkdir(parents=True)
    for init in (folder.parent.parent, folder.parent, folder):
        (init / "__init__.py").touch()
    for name, source in travelling_code().items():
        (folder / name).write_text(source, encoding="utf-8")
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT.format(guard='if __name__ == "__main__":' if guarded else "if True:"))
    font = package / "fonts" / "DejaVuSansMono.ttf"
    command = [sys.executable, str(script), str(tmp_path), str(font)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": ""})
    if guarded:
        assert ran.stdout.strip() == "same", ran.stderr
    else:
        assert "needs the guard if __name__ == '__main__'" in ran.stderr


_USER_SCRIPT = """
import sys
import transformers_hybridctx
from transformers_hybridctx import PageRenderer, RenderConfig
from transformers_hybridctx.rendering import parallel

def modules(folder, task):
    return sorted({"torch", "transformers"} & sys.modules.keys())

if __name__ == "__main__":
    renderer = PageRenderer(RenderConfig())
    held = renderer, None, 1.0
    tasks = parallel._in_order(range(8), lambda task: None, modules, lambda task, found: found, 2, held)
    found = [names for names in tasks if names is not None]
    print(found[0] if found else "none of them was sent out", all(names == found[0] for names in found))
"""


def test_processes_that_draw_start_without_torch_whatever_the_script_imports_from_here(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(_USER_SCRIPT)
    # The variable is for the script's own process alone: the package takes it out of the environment.
    env = {**os.environ, "HYBRIDCTX_LIGHT_START": "1"}
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, env=env)
    assert ran.stdout.strip() == "[] True", ran.stderr


def test_every_name_of_the_package_can_be_found_after_a_light_start():
    tree = ast.parse(Path(transformers_hybridctx.__file__).read_text(encoding="utf-8"))
    homes = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 1}
    assert homes == set(transformers_hybridctx._HOMES)
