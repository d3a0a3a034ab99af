"""Builds container images and says how large they are.

    python -m tools.images build [NAME ...] [--variant cpu|cuda] [--engine NAME] [--output DIR]
    python -m tools.images check [NAME ...] [--variant cpu|cuda] [--engine NAME]
    python -m tools.images sizes [--output DIR]

Names are those of the files in Dockerfiles/: gateway, emulated, operator, encoder, dit, decoder,
flex.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tools.images import debian, sizes, wheels
from tools.images.builder import Builder, Options
from tools.images.catalog import IMAGES, Variant, select
from tools.images.checks import problems
from tools.images.containers import opened
from tools.images.engines import NAMES, Engine, choose
from tools.images.errors import ImageError
from tools.images.places import Places
from tools.images.record import Record


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.images",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="build images and save them as archives")
    check = commands.add_parser("check", help="run what was built, and say what is wrong with it")
    names = ", ".join(image.name for image in IMAGES)
    for command in (build, check):
        command.add_argument("names", nargs="*", metavar="NAME", help=f"{names}; all if none")
        command.add_argument("--variant", type=Variant, choices=list(Variant), default=Variant.CUDA)
        command.add_argument("--engine", choices=["auto", *NAMES], default="auto")
    build.add_argument(
        "--base", default="", help='full name of the base, or "debian" for one made here'
    )
    build.add_argument("--torch-index", default="", help="index that has torch for CPUs")
    build.add_argument(
        "--packages",
        choices=["auto", "host", "build"],
        default="auto",
        help="whether packages are fetched here, or by the build over the network",
    )
    for command in (build, check, commands.add_parser("sizes", help="say how large they are")):
        command.add_argument("--output", type=Path, default=Places.output, metavar="DIR")
    return parser


def _say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def _engine(wanted: str, places: Places) -> Engine:
    try:
        return choose(wanted, places)
    except ImageError:
        if wanted not in ("auto", "buildah"):
            raise
    debian.install({"buildah": "buildah"}, _say)
    return choose("buildah", places)


def _build(arguments: argparse.Namespace, places: Places) -> None:
    images = select(arguments.names)
    if arguments.packages == "host" and not wheels.can_fetch():
        raise ImageError(
            "--packages host: this interpreter is not the images' Python 3.11 on Linux with glibc; "
            "expected that, or --packages build"
        )
    options = Options(
        variant=arguments.variant,
        base=arguments.base,
        torch_index=arguments.torch_index,
        fetch=arguments.packages != "build" and wheels.can_fetch(),
    )
    engine = _engine(arguments.engine, places)
    _say(f"building with {engine.name}")
    Builder(engine, places, options, _say).build(images)


def _check(arguments: argparse.Namespace, places: Places) -> None:
    engine = _engine(arguments.engine, places)
    if engine.name == "buildah":
        debian.install({"runc": "runc"}, _say)
    wrong = []
    for image in select(arguments.names):
        reference = image.reference(wheels.version(places), arguments.variant)
        with opened(engine, reference) as runner:
            found = list(problems(image, runner, places))
        _say(f"{image.name}: {len(found)} problems" if found else f"{image.name}: in order")
        wrong += [f"{reference}: {problem}" for problem in found]
    if wrong:
        raise ImageError("\n".join(wrong))


def main() -> None:
    """Run from the command line."""
    arguments = _parser().parse_args()
    places = Places(output=arguments.output.resolve())
    try:
        if arguments.command == "build":
            _build(arguments, places)
        if arguments.command == "check":
            _check(arguments, places)
            return
        print(sizes.table(sizes.saved(places.output), Record.read(places.record)))
    except ImageError as error:
        sys.exit(f"images: {error}")


if __name__ == "__main__":
    main()
