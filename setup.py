"""Packages of the wheel: every room of the checkout, under the one name `tristream`."""

from setuptools import find_packages, setup

ROOMS = (
    "bench",
    "commands",
    "dataset",
    "flow",
    "fusion",
    "media",
    "report",
    "serving",
    "store",
    "streams",
    "workshop",
)

setup(
    packages=[
        "tristream",
        *(
            f"tristream.{package}"
            for package in find_packages(include=[p for r in ROOMS for p in (r, f"{r}.*")])
        ),
    ],
    package_dir={"tristream": "tristream", **{f"tristream.{room}": room for room in ROOMS}},
    package_data={
        "tristream": ["presets/*.toml"],
        "tristream.report": ["*.j2", "*.css", "*.js"],
        "tristream.serving": ["*.j2", "*.css", "*.js"],
    },
)
