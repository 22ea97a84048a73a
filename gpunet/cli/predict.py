"""The command ``gpunet predict``: what a trained model sees in image files."""

import argparse
import sys
from typing import Any

import numpy as np

from gpunet.cli.tools import at_least, silent, write_json

#: brightness of an image's border above which it does not look light on dark
LIGHT = 0.5


def predict_part(parser: argparse.ArgumentParser) -> None:
    """Its own arguments."""
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="png, jpg, bmp, gif, webp, ppm, pgm or npy")
    parser.add_argument("--model", required=True, metavar="FILE", help="checkpoint of `gpunet train --save FILE`")
    parser.add_argument("--top", type=at_least(int, 1), default=3, metavar="N", help="how many classes to show (3)")
    told = "exchange black and white: the data sets are light on dark, a drawing on paper or a photo is not"
    parser.add_argument("--invert", action="store_true", help=told)
    parser.epilog = (
        "Grey or colour, any size: images are resized to the model's. A folder of digits drawn on white paper: "
        "gpunet predict digits/*.png --model digits.safetensors --invert"
    )
    parser.set_defaults(run=predict)


def predict(args: argparse.Namespace) -> int:
    """Says for each file the likeliest classes."""
    from gpunet.train.trained import Trained

    trained = Trained(args.model)
    images = np.stack([trained.read(each, args.invert) for each in args.images])
    if not args.invert and not args.quiet:
        _look(args.images, images)
    found = trained.guesses(images, args.top)
    if not silent(args):
        wide = max(map(len, args.images))
        for name, row in zip(args.images, found):
            told = "  ".join(f"{each.name} {100 * each.probability:.1f} %" for each in row)
            sys.stdout.write(f"{name:<{wide}}  {told}\n")
    write_json(args, _content(args, trained, found))
    return 0


def _look(names: list[str], images: np.ndarray) -> None:
    """A word about images that look dark on light."""
    border = np.ones(images.shape[2:], bool)
    border[1:-1, 1:-1] = False
    light = [name for name, image in zip(names, images) if image[:, border].mean() > LIGHT]
    if light:
        more = f" and {len(light) - 1} more" if len(light) > 1 else ""
        told = "the model has learned light shapes on a dark ground; if they are dark on light here, add --invert"
        sys.stderr.write(f"gpunet: note: {light[0]}{more}: the border is light; {told}\n")


def _content(args: argparse.Namespace, trained: Any, found: list[Any]) -> dict[str, Any]:
    """The result for JSON."""
    return {
        "model": trained.name,
        "data": trained.data,
        "checkpoint": args.model,
        "inverted": args.invert,
        "images": [
            {"file": name, "classes": [{"name": each.name, "probability": each.probability} for each in row]}
            for name, row in zip(args.images, found)
        ],
    }
