"""Reads rendered pages by CRAFT and EasyOCR's English recogniser, dense and slim, as two finished runs have them.

    python tools/text_reading.py runs/craft runs/english_ocr --picture pages.png

Exit codes: 0 done, 2 bad input.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from structprune.errors import StructPruneError
from structprune.suites.command_line import Parser, fail, new_file, note, whole
from structprune.suites.text_reading import Options, compare, draw


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("detector", type=Path, help="the folder of a run of recipes/craft.yaml")
    parser.add_argument("recogniser", type=Path, help="the folder of a run of recipes/english_ocr.yaml")
    parser.add_argument("--pages", type=whole, default=24, help="how many pages are read (24)")
    parser.add_argument("--size", type=whole, default=320, help="their side in pixels (320)")
    parser.add_argument("--width", type=whole, default=256, help="pixels of a line's width (256)")
    parser.add_argument("--picture", type=new_file, metavar="FILE", help="draws a page with what was found")
    parser.add_argument("--page", type=int, default=0, help="which page is drawn (0)")
    options = parser.parse_args(arguments)
    folders = options.detector, options.recogniser
    for folder in folders:
        if not folder.is_dir():
            fail(f"{folder} is not a folder: give that of a finished run")
    if not 0 <= options.page < options.pages:
        fail(f"--page {options.page}: pages are counted from 0 to {options.pages - 1}")
    chosen = Options(options.pages, options.size, options.width)
    try:
        comparison = compare(*folders, chosen, lambda share: note(f"{share:.0%} of the pages"))
    except StructPruneError as error:
        fail(str(error), error.exit_code)
    print("share of words: " + ", ".join(f"{name} {share:.3f}" for name, share in comparison.shares().items()))
    for kind, (find, read) in comparison.milliseconds().items():
        print(f"{kind}: {find:.1f} ms to find, {read:.1f} ms to read, medians of {options.pages} pages")
    for name, part in (("find", "finding"), ("read", "reading"), ("both", "seconds")):
        speedup, low, high = comparison.speedup(lambda reading, part=part: getattr(reading, part))
        print(f"{name}: {speedup:.2f} times as fast (95 %: {low:.2f} to {high:.2f})")
    if options.picture:
        draw(comparison, options.page, options.picture)
        note(f"wrote {options.picture}")


if __name__ == "__main__":
    main()
