"""What pip installs with the package, and its extras: the sections of requirements.txt. The rest is pyproject.toml."""

from pathlib import Path

from setuptools import setup

text = Path(__file__).with_name("requirements.txt").read_text(encoding="utf-8")
package, serve, inspect, lab, test = (
    [line.partition("#")[0].strip() for line in section.splitlines() if line[:1] not in ("", "#")]
    for section in text.split("\n\n")[1:]
)
extras = {"serve": serve, "inspect": inspect, "lab": lab, "test": test}
setup(install_requires=package, extras_require=extras)
