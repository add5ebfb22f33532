"""The report in a browser: from the file system, at three widths, with the mouse, fingers and keyboard, on paper."""

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser import Visits
from xmodel2.release.reporting.build import Report, build_report
from xmodel2.release.reporting.section import Section
from xmodel2.release.reporting.shell import report_page
from xmodel2.release.reporting.watch import live_line

if TYPE_CHECKING:
    from playwright.sync_api import Page

BAD = "</script><script>document.title = 'ran'</script><img src=x onerror=\"document.title = 'ran'\">"
EVIL = BAD.replace("/", "")
"""The same as a folder's name."""
TABLE = "#benchmarks table.paper"


@pytest.fixture(scope="module")
def folder(road: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs and the page of both; the second has hostile names, sources, samples, results and a skipped step."""
    folder = tmp_path_factory.mktemp("report")
    for name in ("a", EVIL):
        shutil.copytree(road / "run", folder / name, ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
    recipe = (folder / EVIL / "recipe.toml").read_text().replace('name = "demo"', f"name = {json.dumps(BAD)}")
    (folder / EVIL / "recipe.toml").write_text(recipe)
    sample = {"prompt": BAD, "continuation": BAD}
    lines: list[dict[str, Any]] = [
        {"step": 20, "kind": "heldout", "tokens": 10240, "heldout": {"docs": {"loss": 3.0}, BAD: {"loss": 4.0}}},
        {"step": 20, "kind": "samples", "tokens": 10240, "stage": "decay", "samples": [sample]},
        {"step": 9, "kind": "skipped", "stage": "stable", "reason": BAD},
    ]
    with open(folder / EVIL / "metrics.jsonl", "a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    task = {"metric": "acc", "interval": [0.2, 0.4], "items": 10, "of": 10, "num_fewshot": 0}
    tasks = {name: {**task, "score": score} for name, score in (("piqa", 0.3), ("arc_easy", 0.65))}
    (folder / EVIL / "evaluation" / "step-20").mkdir(parents=True)
    results = {"model": {"name": BAD, "parameters": 10**9}, "settings": {"limit": None}, "tasks": tasks}
    (folder / EVIL / "evaluation" / "step-20" / "results.json").write_text(json.dumps(results))
    (folder / EVIL / "evaluation" / "step-20" / "items.html").write_text("")
    build_report([folder / "a", folder / EVIL], folder / "report.html")
    return folder


@pytest.fixture
def page(folder: Path, visits: Visits) -> Iterator["Page"]:
    """The page of both runs; no script of a run's own may have run when the test ends."""
    page = visits.open((folder / "report.html").as_uri())
    yield page
    assert "ran" not in page.title().split()
    assert page.locator("img").count() == 0


def box(page: "Page", chart: int = 0) -> dict[str, float]:
    """Return where a chart is, scrolled into view."""
    canvas = page.locator("#charts canvas").nth(chart)
    canvas.scroll_into_view_if_needed()
    found = canvas.bounding_box()
    assert found
    return {"x": found["x"], "y": found["y"], "width": found["width"]}


def zoomed(page: "Page") -> bool:
    """Tell whether a part of the curves is shown."""
    return page.get_by_role("button", name="show all").is_enabled()


def settle(page: "Page") -> None:
    """Wait until what was asked for is drawn."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (768, "light"), (1280, "dark")])
def test_it_fits_and_is_drawn_at_every_width(folder: Path, visits: Visits, width: int, scheme: Any) -> None:
    page = visits.open((folder / "report.html").as_uri(), width=width, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    settle(page)
    inked = "(c) => new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer).filter(Boolean).length"
    assert all(canvas.evaluate(inked) > 500 for canvas in page.locator("#charts canvas").all())
    assert not page.locator("#still").is_visible()
    assert page.locator("nav:visible").count() == (1 if width == 1280 else 0)
    if width < 1280:
        page.get_by_text("Contents", exact=True).click()
    page.get_by_role("link", name="Claims").click()
    assert page.evaluate("document.getElementById('claims').getBoundingClientRect().top") < 800
    assert page.locator("details.contents").get_attribute("open") is None


def test_images_are_never_wider_than_drawn_and_never_push_the_page(tmp_path: Path, visits: Visits) -> None:
    def image(width: int) -> str:
        drawing = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="50" viewBox="0 0 {width} 50"/>'
        data = base64.b64encode(drawing.encode()).decode()
        return f'<figure><img alt="" src="data:image/svg+xml;base64,{data}"></figure>'

    file = tmp_path / "page.html"
    file.write_text(report_page("images", "", [Section("a", "A", image(300) + image(1500))]))
    page = visits.open(file.as_uri())
    for width, least in ((1280, 900), (390, 570)):
        page.set_viewport_size({"width": width, "height": 800})
        small, large = page.evaluate("[...document.images].map((image) => image.clientWidth)")
        assert small == 300
        assert least < large < 1500
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_dragging_zooms_and_a_double_click_shows_all(page: "Page") -> None:
    at = box(page)
    page.mouse.move(at["x"] + 200, at["y"] + 80)
    page.mouse.down()
    page.mouse.move(at["x"] + 400, at["y"] + 80, steps=3)
    page.mouse.up()
    settle(page)
    assert zoomed(page)
    page.mouse.dblclick(at["x"] + 300, at["y"] + 80)
    settle(page)
    assert not zoomed(page)
    page.mouse.move(at["x"] + 300, at["y"] + 80)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -100)
    page.keyboard.up("Control")
    settle(page)
    assert zoomed(page)
    page.get_by_role("button", name="show all").click()
    settle(page)
    assert not zoomed(page)


def test_pointing_shows_the_values_of_all_runs_and_marks(page: "Page") -> None:
    at = box(page)
    page.mouse.move(at["x"] + at["width"] * 0.46, at["y"] + 100)
    tip = page.locator(".tip:visible")
    assert tip.locator("div").count() == 2
    assert "tokens" in tip.inner_text()
    for share in range(35, 50):  # the skipped step is one of them
        page.mouse.move(at["x"] + at["width"] * share / 100, at["y"] + 100)
        if tip.locator("p").count():
            break
    assert f"step 9 skipped: {BAD}" in tip.inner_text()


def test_axes_smoothing_and_legends(page: "Page") -> None:
    at = box(page)
    for by, said in (("steps", "step "), ("time", "minutes")):
        page.locator("#charts").get_by_text(by, exact=True).click()
        page.mouse.move(at["x"] + 300, at["y"] + 100)
        assert said in page.locator(".tip:visible").inner_text()
    page.get_by_role("button", name="demo").click()
    settle(page)
    page.mouse.move(at["x"] + 301, at["y"] + 100)
    assert page.locator(".tip:visible div").count() == 1
    page.get_by_role("button", name="logarithmic axis: Training loss").click()
    assert page.locator("#charts figcaption [aria-pressed=true]").count() == 1
    before = page.locator("#charts canvas").first.evaluate("(canvas) => canvas.toDataURL()")
    page.get_by_label("smoothing").fill("90")
    settle(page)
    assert page.locator("#charts canvas").first.evaluate("(canvas) => canvas.toDataURL()") != before


def test_the_keyboard_does_what_the_mouse_does(page: "Page") -> None:
    page.locator("#charts canvas").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert "demo" in page.get_by_role("status").inner_text()
    page.keyboard.press("+")
    settle(page)
    assert zoomed(page)
    page.keyboard.press("0")
    settle(page)
    assert not zoomed(page)


def test_two_fingers_zoom(folder: Path, visits: Visits) -> None:
    page = visits.open((folder / "report.html").as_uri(), width=390, has_touch=True, is_mobile=True)
    at = box(page)
    fingers = page.context.new_cdp_session(page)
    for kind, spread in (("touchStart", 40), ("touchMove", 60), ("touchMove", 100)):
        points = [{"x": at["x"] + 170 + side * spread, "y": at["y"] + 90, "id": i} for i, side in enumerate((-1, 1))]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    fingers.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    settle(page)
    assert zoomed(page)


def test_tables_sort_by_click_and_by_key(page: "Page") -> None:
    column = page.locator(f"{TABLE} thead th").nth(2)  # ARC-e
    scores = page.locator(f"{TABLE} tbody tr td:nth-child(3)")

    def values() -> list[float]:
        return [float(text.split("\n")[0].split()[0]) for text in scores.all_inner_texts()]

    written = values()
    column.get_by_role("button").click()
    assert column.get_attribute("aria-sort") == "ascending"
    assert values() == sorted(written)
    page.keyboard.press("Enter")
    assert column.get_attribute("aria-sort") == "descending"
    assert values() == sorted(written, reverse=True)
    page.keyboard.press("Space")
    assert column.get_attribute("aria-sort") == "none"
    assert values() == written


def test_what_was_not_measured_sorts_last(page: "Page") -> None:
    column = page.locator(f"{TABLE} thead th").nth(1)  # ARC-c, which this evaluation left out
    for _ in range(2):
        column.get_by_role("button").click()
        assert page.locator(f"{TABLE} tbody tr").last.get_attribute("class") == "ours"


def test_on_paper_and_without_scripts_there_are_figures(folder: Path, visits: Visits, page: "Page") -> None:
    page.emulate_media(media="print")
    assert page.locator("#still").is_visible()
    assert not page.locator("#charts").is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")
    plain = visits.open((folder / "report.html").as_uri(), java_script_enabled=False)
    assert plain.locator("#still svg").first.is_visible()


def test_a_live_page_comes_back_to_where_its_reader_is(folder: Path, visits: Visits) -> None:
    report = Report([folder / "a"], folder / "live.html")
    report.write(live_line(report.runs, every=4, now=1.0))
    page = visits.open((folder / "live.html").as_uri())
    page.evaluate("getSelection().selectAllChildren(document.getElementById('live'))")  # being read: it stays
    assert "live: updated" in page.locator("#live").inner_text()
    page.locator("#charts canvas").first.focus()
    page.keyboard.press("+")
    settle(page)
    page.evaluate("scrollTo(0, 700)")
    report.write()  # the run has ended
    page.evaluate("getSelection().removeAllRanges()")
    page.wait_for_selector("#live", state="detached")
    page.wait_for_load_state()
    settle(page)
    assert zoomed(page)
