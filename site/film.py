"""The README's film: a mask is painted on the site's panel, words are chosen, the edit appears.

    make site && .venv/bin/python site/film.py    # data/pictures/film.webp

It is the front page itself in headless Chromium, with the first result of seed 0. Next: live/.
"""

import argparse
import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright
from serve import served

from blendlab.course.slides import chromium

ROOT = Path(__file__).parent.parent
SCENE, COLOUR, KIND = "meadow", "red", "mushroom"
# The stroke, in fractions of the scene: to and fro over the place of the object, from the top.
STROKE = [(0.58, 0.48), (0.80, 0.48), (0.57, 0.57), (0.81, 0.57), (0.57, 0.66), (0.81, 0.66),
          (0.57, 0.75), (0.81, 0.75), (0.58, 0.83), (0.80, 0.83)]  # fmt: skip
SHOWN = "document.querySelector('.bl-viewer .bl-after').src"
LIMIT = 3e6  # bytes
# The panel alone. How long the edit took is not told, as the film is faster.
STYLE = """#live { position: fixed; inset: 0; z-index: 9999; margin: 0; border-radius: 0; }
#live[data-state=done] .bl-viewer .bl-progress { visibility: hidden; }"""


class Film:
    """Screenshots of a page, and how long each is seen."""

    def __init__(self, page):
        self.page, self.frames, self.times = page, [], []

    def shoot(self, milliseconds):
        png = self.page.screenshot()
        self.frames.append(Image.open(io.BytesIO(png)).convert("RGB"))
        self.times.append(milliseconds)

    def save(self, path):
        """As WebP that repeats for ever."""
        options = dict(save_all=True, append_images=self.frames[1:], duration=self.times, loop=0)
        self.frames[0].save(path, **options, quality=80, method=6, minimize_size=True)


def paint(page, film):
    """Choose the scene, clear what is painted there, and paint with the mouse."""
    page.get_by_role("radio", name=SCENE).check(force=True)
    page.get_by_role("button", name="Clear").click()
    canvas = page.locator(".bl-painter canvas").bounding_box()
    points = [(canvas["x"] + x * canvas["width"], canvas["y"] + y * canvas["height"])
              for x, y in STROKE]  # fmt: skip
    page.mouse.move(*points[0])
    film.shoot(900)
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=6)
        film.shoot(130)
    page.mouse.up()
    film.shoot(500)


def edit(page, film):
    """Choose words, press Edit, and take every picture that the viewer shows."""
    for word in (COLOUR, KIND):
        page.get_by_role("button", name=word, exact=True).click()
        film.shoot(500)
    page.get_by_role("button", name="Edit", exact=True).click()
    before = ""
    while page.locator("#live").get_attribute("data-state") != "done":
        changed = f"before => {SHOWN} !== before || live.dataset.state === 'done'"
        page.wait_for_function(changed, arg=before, timeout=600_000)
        before = page.evaluate(SHOWN)
        film.shoot(140)
    film.shoot(1500)
    for share in [*range(10, 100, 15), *range(85, -1, -17)]:
        page.locator(".bl-swipe").fill(str(share))
        film.shoot(110)
    film.shoot(2500)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--site", type=Path, default=ROOT / "out" / "site" / "html")
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "pictures" / "film.webp")
    given = parser.parse_args()
    program = chromium()
    if not program or not (given.site / "index.html").is_file():
        sys.exit("The film needs Chromium (apt-get install chromium) and the site: make site")
    with served(given.site) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 860, "height": 880}, color_scheme="light")
        page.goto(f"{address}/index.html")
        page.wait_for_selector("#live[data-state=idle]", timeout=60_000)
        page.add_style_tag(content=STYLE)
        film = Film(page)
        paint(page, film)
        edit(page, film)
        browser.close()
    film.save(given.out)
    size, seconds = given.out.stat().st_size, sum(film.times) / 1000
    print(f"{given.out}: {len(film.frames)} frames, {seconds:.0f} s, {size / 1e6:.2f} MB")
    if size > LIMIT:
        sys.exit(f"The film is larger than {LIMIT / 1e6:.0f} MB: take fewer frames")


if __name__ == "__main__":
    main()
