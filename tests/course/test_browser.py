"""The course as a reader meets it: JupyterLab in a browser, a notebook opened, its cells run, every slider moved.

nbval runs every notebook; only a browser shows that pictures are there before anything runs, and that widgets come to
life. Everything runs on loopback, with all files of JupyterLab and of the browser in a temporary folder.
"""

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from browser import chromium, needs_browser, wait
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from kimi_mini.course.sliders import WIDGET_VIEW

pytestmark = needs_browser

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "notebooks" / "00_kimi_k2_on_one_page.ipynb"
[HOOK] = re.findall(r"--\S*pre_save_hook=\S+", (ROOT / "Makefile").read_text())  # `make lab` does so
SETTINGS = {  # every cell in the page, wherever the reader looks; no questions, no news
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
CELLS = """  // the code cells of the notebook that is open, as they would be saved
return [...jupyterapp.shell.currentWidget.content.widgets].map(cell => cell.model.toJSON()).filter(cell => cell.cell_type == "code")
"""
RUN_ALL = "void jupyterapp.commands.execute('notebook:run-all-cells')"  # Run > Run All Cells
OPEN = """  // a double click in the file browser, once the lab is up and knows its kernels
void Promise.all([jupyterapp.restored, jupyterapp.serviceManager.kernelspecs.ready]).then(
    () => jupyterapp.commands.execute("docmanager:open", {path: arguments[0]}))
"""
STILLS = """  // what the cells with a slider show
const cells = [...jupyterapp.shell.currentWidget.content.widgets].filter(cell => /^explore\\(/m.test(cell.model.sharedModel.source));
return cells.map(cell => [cell.outputArea.node.innerText,
    [...cell.outputArea.node.querySelectorAll("img")].filter(picture => picture.naturalWidth > 99).length])
"""
SAVE_AND_SHUT = """  // File > Save, then Kernel > Shut Down, and the tab is closed
const commands = jupyterapp.commands, panel = jupyterapp.shell.currentWidget, done = arguments[0];
commands.execute("docmanager:save").then(() => panel.sessionContext.shutdown()).then(() => panel.close()).then(done)
"""
READY = """  // a sign that says "idle" stands there before the kernel does, and cells that are run then are lost
const context = jupyterapp.shell.currentWidget.sessionContext;
return Boolean(context?.isReady) && context.kernelDisplayStatus == "idle" && context.session.kernel.connectionStatus == "connected"
"""


# --------------------------------------------------------------------------------------------- JupyterLab
@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A folder with the package, the data and the notebooks' folder, as in the repository; the notebooks are copies."""
    folder = tmp_path_factory.mktemp("course")
    for name in ("kimi_mini", "data", "figures"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "notebooks").mkdir()
    return folder


@pytest.fixture(scope="module")
def lab(course, tmp_path_factory):
    """Address of a JupyterLab of our own on a free port, and the environment that it runs in."""
    private = tmp_path_factory.mktemp("lab")
    for name, values in SETTINGS.items():
        file = private / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    homes = ("HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
    env = {
        **os.environ,
        **{name: str(private / name.lower()) for name in homes},
        "PYTHONPATH": str(ROOT),
        "JUPYTER_TOKEN": secrets.token_hex(),
        "JUPYTERLAB_SETTINGS_DIR": str(private / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(private / "workspaces"),
    }
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        "--port=0",
        "--expose-app-in-browser",
        f"--ServerApp.root_dir={course / 'notebooks'}",
        HOOK,
    ]
    with open(private / "log", "w") as output:
        server = subprocess.Popen(command, env=env, stdout=output, stderr=subprocess.STDOUT)

    def described():
        assert server.poll() is None, (private / "log").read_text()
        return next((private / "jupyter_runtime_dir").glob("jpserver-*.json"), None)

    try:
        found = json.loads(wait("JupyterLab", 90, described).read_text())
        yield f"http://127.0.0.1:{found['port']}/lab?reset&token={env['JUPYTER_TOKEN']}", env
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("browser")) as driver:
        yield driver


# ------------------------------------------------------------------------------------------------- a page
class Page:
    """A notebook in the browser: run it, read it, move its sliders. Limits are seconds."""

    def __init__(self, browser, lab, name, run_limit=600, redraw_limit=30):
        self.browser, self.run_limit, self.redraw_limit = browser, run_limit, redraw_limit
        browser.set_page_load_timeout(120)
        browser.get(lab[0])
        # A notebook that opens before the lab knows its kernels is asked for one, and its cells wait for the answer.
        wait("the lab", 120, lambda: browser.execute_script("return Boolean(window.jupyterapp)"))
        browser.execute_script(OPEN, name)
        wait("the notebook", 120, lambda: self.find(".jp-Notebook .jp-Cell"))
        wait("a kernel", 120, lambda: browser.execute_script(READY))

    def find(self, selector):
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def run_all(self):
        """Run All Cells, until every cell has its number or one has failed: what the failed ones said."""
        self.browser.execute_script(RUN_ALL)
        wait("the last cell", self.run_limit, lambda: self.errors() or None not in self.numbers())
        return self.errors()

    def numbers(self):
        """The number that each cell got when it had run, else None."""
        return [cell["execution_count"] for cell in self.browser.execute_script(CELLS)]

    def errors(self):
        """What failed cells say. Their outputs are there before their number: without it a cell is still on its way."""
        cells = [cell for cell in self.browser.execute_script(CELLS) if cell["execution_count"] is not None]
        outputs = [output for cell in cells for output in cell["outputs"]]
        return [f"{o['ename']}: {o['evalue']}" for o in outputs if o["output_type"] == "error"]

    def stills(self):
        """For each cell with a slider: the text of its output, and how many pictures stand there."""
        return wait("pictures", 30, lambda: self.browser.execute_script(STILLS))

    def explorers(self):
        """The boxes of `explore` that have a slider."""
        boxes = wait("sliders", 30, lambda: self.find(".jp-Notebook .widget-vbox"))
        return [box for box in boxes if box.find_elements(By.CSS_SELECTOR, ".noUi-handle")]

    def move(self, box):
        """Move the first slider of a box by one: the picture before and after, and the complaint shown, if any."""
        problem, canvas = box.find_elements(By.CSS_SELECTOR, ":scope > .widget-html")
        picture = lambda: canvas.get_attribute("innerHTML")
        wait("the first picture", self.redraw_limit, lambda: "<img" in picture() or "<pre" in picture())
        before, handle = picture(), box.find_element(By.CSS_SELECTOR, ".noUi-handle")
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'start'})", box)
        at_start = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemin")
        key = Keys.ARROW_RIGHT if at_start else Keys.ARROW_LEFT
        ActionChains(self.browser).move_to_element(handle).click().send_keys(key).perform()
        try:
            wait("another picture", self.redraw_limit, lambda: picture() != before or problem.text)
        except AssertionError:
            pass  # the caller compares
        return before, picture(), problem.text


def written(path, *sources, outputs=()):
    """A notebook of these code cells; the last one has outputs."""
    cells = [nbformat.v4.new_code_cell(source.strip()) for source in sources]
    cells[-1].outputs = list(outputs)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)


def trust(path, lab):
    """What a reader says of a notebook in the menu; what it has run itself, JupyterLab trusts without."""
    subprocess.run([sys.executable, "-m", "nbformat.sign", str(path)], env=lab[1], check=True)


# -------------------------------------------------------------------------------------------------- tests
@pytest.mark.slow
@pytest.mark.parametrize("trusted", [False, True])
def test_an_opened_notebook_shows_the_picture_of_every_slider_before_anything_runs(
    trusted, course, lab, browser
):
    path = course / "notebooks" / f"opened_{trusted}.ipynb"
    shutil.copy(PAGE, path)
    if trusted:
        trust(path, lab)
    stills = Page(browser, lab, path.name).stills()
    assert len(stills) == PAGE.read_text().count('"explore(')
    assert all(pictures == 1 and "not found" not in text for text, pictures in stills), stills


@pytest.mark.slow
def test_a_notebook_that_was_run_saved_and_left_shows_them_too(course, lab, browser):
    path = course / "notebooks" / "left.ipynb"
    draw = "draw = lambda a: style.bars({'a': a}, limits=(0.5, 9))\nexplore(draw, a=(1, 5))"
    written(path, "from kimi_mini.course import explore\nfrom kimi_mini.course.figures import style", draw)
    page = Page(browser, lab, path.name)
    assert page.run_all() == [] and page.explorers()
    browser.execute_async_script(SAVE_AND_SHUT)
    [(text, pictures)] = Page(browser, lab, path.name).stills()
    assert pictures == 1 and "not found" not in text


@pytest.mark.slow
def test_a_notebook_comes_to_life(course, lab, browser):
    notebook = nbformat.read(PAGE, 4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None  # what the page shows then, it has made itself
    nbformat.write(notebook, course / "notebooks" / PAGE.name)
    page = Page(browser, lab, PAGE.name)
    assert page.run_all() == []
    explorers = page.explorers()
    assert explorers, "nothing to move"
    for box in explorers:
        before, after, complaint = page.move(box)
        assert complaint == ""
        assert after != before, "a slider moved and the picture stayed"


BROKEN = """
from kimi_mini.course import explore
---
explore(lambda a: f"a is {a}", a=(1, 5))
---
explore(lambda a: f"a is {6 // (a - 2)}", a=(1, 5))
---
explore(lambda a: "whatever a is", a=(1, 5))
---
explore(lambda a: f"a is {6 // (a - 5)}", a=(1, 5))
---
"never reached"
"""


@pytest.mark.slow
def test_the_checks_can_fail(course, lab, browser):
    """A slider that works, one that breaks on its way, one that does nothing; and one that breaks at its end fails in
    its cell, so that the next one never runs."""
    written(course / "notebooks" / "broken.ipynb", *BROKEN.split("---"))
    page = Page(browser, lab, "broken.ipynb", run_limit=60, redraw_limit=5)
    errors = page.run_all()
    assert len(errors) == 1 and "ZeroDivisionError" in errors[0]
    assert page.numbers() == [1, 2, 3, 4, 5, None]

    works, breaks, sleeps = page.explorers()
    before, after, complaint = page.move(works)
    assert ("a is 1" in before, "a is 2" in after, complaint) == (True, True, "")
    before, after, complaint = page.move(breaks)
    assert before == after and "ZeroDivisionError" in complaint
    before, after, complaint = page.move(sleeps)
    assert before == after and complaint == ""


@pytest.mark.slow
def test_a_widget_that_is_kept_is_noticed(course, lab, browser):
    data = nbformat.read(PAGE, 4).cells
    [picture, *_] = [
        o.data for cell in data for o in cell.get("outputs", []) if "frozen at" in str(o.get("data"))
    ]
    view = {WIDGET_VIEW: {"version_major": 2, "version_minor": 0, "model_id": "0" * 32}}
    path = course / "notebooks" / "kept.ipynb"
    output = nbformat.v4.new_output("display_data", data={**picture, **view})
    written(path, "explore(draw)", outputs=[output])
    trust(path, lab)
    page = Page(browser, lab, path.name)
    wait("the complaint", 30, lambda: "model not found" in page.stills()[0][0])
    assert page.stills()[0][1] == 0
