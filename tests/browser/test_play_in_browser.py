"""The pieces in a real browser, from a disk: as exact as PyTorch, played by a script, at three widths, in silence."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hyla_repro import load, paths
from hyla_repro.book import play
from hyla_repro.tasks.fuzzy_logic import FuzzyLogic
from hyla_repro.tasks.sraven import SRaven

pytestmark = pytest.mark.browser

PROBLEMS = 100
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
PIECES = ("network", "fuzzy-logic", "sraven")
FORWARD = """async ([name, problems, last]) => {
  const model = await hylaPlay.load(name), start = performance.now();
  const outputs = problems.map((inputs) => [...hylaPlay.forward(model, Float64Array.from(inputs), last).outputs]);
  return { outputs, ms: (performance.now() - start) / problems.length };
}"""


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page alone, built with the book's own settings."""
    root = tmp_path_factory.mktemp("project")
    for name in ("data", "figures", "hyla_repro"):
        (root / name).symlink_to(paths.CODE / name)
    ignore = shutil.ignore_patterns("_build", "*.ipynb", "*.md", "_toc.yml")
    shutil.copytree(paths.CODE / "book", root / "book", ignore=ignore)
    shutil.copy(paths.CODE / "book" / "play.md", root / "book")
    (root / "book" / "_toc.yml").write_text("format: jb-book\nroot: play\n")
    environment = os.environ | {"PYTHONPATH": str(paths.CODE)}
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", "book/"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return root / "book" / "_build" / "html" / "play.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, of the system if it has one, else of Playwright."""
    try:
        import playwright.sync_api as api
    except ImportError:
        pytest.exit("needs Playwright: `pip install --group browser`", returncode=1)
    system = next(filter(None, map(shutil.which, CHROMIUM)), None)
    with api.sync_playwright() as started:
        if system is None and not Path(started.chromium.executable_path).exists():
            pytest.exit("needs Chromium: `apt-get install chromium`, or `playwright install chromium`", returncode=1)
        chromium = started.chromium.launch(executable_path=system, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Any, book: Path) -> Iterator[Any]:
    """Open the page at a width; at the end, nothing of play/ has said anything."""
    said, pages = [], []

    def open_at(width: int = 1200, **settings: Any) -> Any:
        page = browser.new_page(viewport={"width": width, "height": 900}, **settings)
        # The theme is not silent on a page from a disk, whose fonts a browser refuses.
        page.on("console", lambda message: "/play/" in message.location["url"] and said.append(message.text))
        page.on("pageerror", lambda error: "/play/" in (error.stack or "") and said.append(str(error)))
        page.on("request", lambda request: request.url.startswith("http") and said.append(request.url))
        page.goto(book.as_uri())
        pages.append(page)
        return page

    yield open_at
    for page in pages:
        page.close()
    assert said == []


def started(page: Any, piece: str) -> Any:
    """Scroll to a piece, and return it once it is drawn."""
    place = page.locator(f"[data-play={piece}]")
    place.scroll_into_view_if_needed()
    page.wait_for_selector(f".play-started[data-play={piece}] .play-live")
    return place


@pytest.mark.parametrize("name", play.MODELS)
def test_the_models_say_what_torch_says(open_page, name):
    model, fuzzy = load(name), name.endswith("fuzzy-logic")
    task = FuzzyLogic() if fuzzy else SRaven(n_features=2)
    inputs, last = task.batch("heldout", 0, PROBLEMS).inputs, 1 if fuzzy else 2
    with torch.no_grad():
        expected = model(inputs, last=last)
    found = open_page().evaluate(FORWARD, [name, inputs.flatten(1).tolist(), last])
    difference = (torch.tensor(found["outputs"]) - expected.flatten(1)).abs().max().item()
    print(f"{name}: {difference:.1e} from torch, {found['ms']:.1f} ms a problem")
    assert difference < 1e-5
    # One number of torch's against another's place would be far off.
    assert expected.flatten(1).roll(1, 0).sub(expected.flatten(1)).abs().max() > 0.1


def test_a_whole_game_of_sraven(open_page):
    page = open_page()
    game, right = started(page, "sraven"), 0
    for number in range(1, 11):
        assert game.locator(".play-title").first.text_content() == f"Problem {number} of 10"
        submit = game.locator("button[type=submit]")
        assert submit.is_disabled()
        game.locator(".play-answer fieldset").first.locator("input").first.focus()
        page.keyboard.press("3")
        page.keyboard.press("5")
        submit.click()
        rows = game.locator(".play-verdict li")
        rows.nth(3).wait_for()
        assert [row.get_attribute("data-who") for row in rows.all()] == ["you", "softmax", "linear", "hyla"]
        assert rows.first.get_attribute("data-answer") == "3 5"
        right += rows.first.get_attribute("data-right") == "true"
        assert game.locator(".play-board td").first.text_content() == f"{right} of {number}"
        page.keyboard.press("Enter")  # the next problem has the focus
    assert f"You solved {right} of 10." in game.locator(".play-end").text_content()
    page.keyboard.press("Enter")
    assert game.locator(".play-title").first.text_content() == "Problem 1 of 10"


def test_every_level_can_be_played_and_held_out_tasks_only_where_models_are(open_page):
    game = started(open_page(), "sraven")
    for features, models in (("1", 0), ("2", 3), ("3", 0), ("4", 0)):
        game.get_by_label(features, exact=True).first.check(force=True)
        assert game.locator(".play-answer fieldset").count() == int(features)
        assert game.locator(".play-board tr").count() == 1 + models
        assert game.get_by_text("held out", exact=True).is_visible() == bool(models)
    game.get_by_label("2", exact=True).first.check(force=True)
    game.get_by_label("held out").check(force=True)
    assert game.locator(".play-title").first.text_content() == "Problem 1 of 10"


def test_a_point_that_is_dragged_is_predicted_by_every_method(open_page):
    page = open_page()
    piece = started(page, "fuzzy-logic")
    panels = piece.locator("[data-says]")
    panels.nth(2).wait_for()
    before = [panel.get_attribute("data-says") for panel in panels.all()]
    frame = piece.locator(".play-frame").first
    box = frame.bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 0.9 * box["height"], steps=3)
    page.mouse.up()
    page.wait_for_function("[...document.querySelectorAll('[data-says]')].map((x) => x.dataset.says).join() !== '"
                           + ",".join(before) + "'")  # fmt: skip
    assert abs(float(piece.get_by_label("x₁").input_value()) - 0.9) < 0.03
    assert abs(float(piece.get_by_label("x₂").input_value()) - 0.1) < 0.03
    # A function that is trained on is learned: what the models say is near what is so.
    is_so = float(piece.locator(".play-says b").first.text_content())
    assert all(abs(float(panel.get_attribute("data-says")) - is_so) < 0.15 for panel in panels.all())


def test_the_keyboard_changes_the_code(open_page):
    page = open_page()
    piece = started(page, "network")
    line = piece.locator(".play-line")
    before = line.text_content()
    piece.get_by_label("head 1: a₁").focus()
    page.keyboard.press("ArrowRight")
    assert "(1.05, −0.60, 0.80)" in line.text_content()
    assert "(1.00, −0.60, 0.80)" in before
    piece.get_by_role("checkbox").check()
    code = [float(part.replace("−", "-")) for part in line.locator("b").text_content().strip("()").split(",")]
    assert abs(sum(x * x for x in code) / 3 - 1) < 0.02


@pytest.mark.parametrize("width", [1400, 768, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_screen(open_page, width, scheme):
    page = open_page(width, color_scheme=scheme, has_touch=width == 390)
    for piece in PIECES:
        place = started(page, piece)
        box, live = place.bounding_box(), place.locator(".play-live")
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert live.evaluate("(x) => x.scrollWidth <= x.clientWidth + 1")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_without_scripts_the_pictures_stay(open_page):
    page = open_page(java_script_enabled=False)
    assert page.locator(".play-static img").count() == len(PIECES)
    assert page.locator(".play-static img").first.is_visible()
    assert page.locator(".play-live").count() == 0
