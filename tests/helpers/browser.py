"""Chromium without a window, for the tests of pages. On Debian: apt install chromium chromium-driver."""

import contextlib
import os
import shutil
import time

import pytest
from selenium import webdriver

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="no browser is installed: apt install chromium chromium-driver"
)


def wait(what, seconds, ask):
    """The first true answer of `ask()`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := ask():
            return answer
        time.sleep(0.2)
    raise AssertionError(f"waited {seconds} s in vain for {what}")


@contextlib.contextmanager
def chromium(profile):
    """A driver with all its files in the folder `profile`. As root it cannot build its sandbox; the only pages it opens
    are ours."""
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (
        "headless=new",
        "no-sandbox",
        "disable-dev-shm-usage",
        "disable-gpu",
        "window-size=1400,1400",
        "disable-background-networking",
        f"user-data-dir={profile}",
    ):
        options.add_argument(f"--{flag}")
    env = {**os.environ, "HOME": str(profile)}
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER, env=env))
    try:
        yield driver
    finally:
        driver.quit()
