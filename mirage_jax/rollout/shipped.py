"""What comes with the package: a world's weights and a few scenes.

Read next: `mirage_jax/rollout/world.py`, `mirage_jax/rollout/scene.py`.
"""

from __future__ import annotations

import difflib
from pathlib import Path

import mirage_jax

PRETRAINED = Path(mirage_jax.__file__).parent / "pretrained"
DEFAULT_WORLD = PRETRAINED / "doom_tiny"
SCENES = PRETRAINED / "scenes"
DEFAULT_SCENE = "lab"


def scene_names() -> list[str]:
    """Return the names of the shipped scenes."""
    return sorted(path.parent.name for path in SCENES.glob("*/geometry.npz"))


def find_scene(text: str | None) -> Path:
    """Return the file of a scene given as a path or shipped name; None is `DEFAULT_SCENE`.

    Raises:
        FileNotFoundError: there is no such file or name.
    """
    names, text = scene_names(), DEFAULT_SCENE if text is None else text
    if Path(text).exists():
        return Path(text)
    if text in names:
        return SCENES / text / "geometry.npz"
    near = difflib.get_close_matches(text, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"shipped scenes: {', '.join(names) or 'none'}"
    raise FileNotFoundError(
        f"--scene: got {text!r}, expected a geometry.npz, a folder with one, a picture or "
        f"a shipped scene; {hint}"
    )
