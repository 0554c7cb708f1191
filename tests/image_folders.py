"""Folders of real images for tests: scikit-learn's digits as PNG files, by class."""

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def write_digits(folder, each=6, classes=("0", "1", "2"), start=0):
    """`each` images of every class into `folder`/CLASS/NAME.png; the paths, class by class."""
    images, labels = load_digits(return_X_y=True)
    paths = []
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for row in np.flatnonzero(labels == int(name))[start : start + each]:
            path = folder / name / f"{row}.png"
            Image.fromarray((images[row].reshape(8, 8) * 15.9).astype(np.uint8)).save(path)
            paths.append(path)
    return paths
