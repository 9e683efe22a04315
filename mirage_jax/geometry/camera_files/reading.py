"""What a file of cameras does not say, and the words (`--as`) that say it.

A format fixes some of these questions and leaves others open. Where an answer is missing and
matters, the reader refuses and names both readings; where the user gives one, it holds even against
the format, since files are often written against their own convention.

Read next: ``stored.py`` (where the answers are used), ``formats.py``.
"""

import dataclasses
import difflib
from collections.abc import Iterable
from typing import Any

from jaxtyping import Float

# word -> (field of Reading, what it says)
WORDS = {
    "c2w": ("matrices", "matrices take points of the camera to the world"),
    "w2c": ("matrices", "matrices take points of the world to the camera"),
    "opencv": ("axes", "camera axes x right, y down, z forward"),
    "opengl": ("axes", "camera axes x right, y up, z backward"),
    "pixels": ("unit", "fx fy cx cy in pixels"),
    "normalized": ("unit", "fx cx divided by the image width, fy cy by its height"),
    "original": ("world", "transforms.json: the world is that of the reconstruction"),
    "turned": ("world", "transforms.json: nerfstudio turned the world to z up and kept no record"),
    "half-pixel": ("center", "the centre of the top-left pixel is (0.5, 0.5)"),
    "whole-pixel": ("center", "the centre of the top-left pixel is (0, 0)"),
}


@dataclasses.dataclass(frozen=True)
class Reading:
    """Answers to what a file leaves open; None leaves the answer to the format.

    Attributes:
      matrices: "c2w" or "w2c".
      axes: "opencv" or "opengl".
      unit: "pixels" or "normalized".
      world: "original" or "turned", for transforms.json without applied_transform.
      center: "half-pixel" or "whole-pixel".
      hw: (height, width) of the images, where the file has no size; else what to rescale to.
      intrinsics: [3, 3] in pixels, for files that have none.
      bent: True if the caller straightens the pictures, so that distortion is no fault.
    """

    matrices: str | None = None
    axes: str | None = None
    unit: str | None = None
    world: str | None = None
    center: str | None = None
    hw: tuple[int, int] | None = None
    intrinsics: Float[Any, "3 3"] | None = None
    bent: bool = False


def reading_of(words: Iterable[str], **more: Any) -> Reading:
    """Return the reading that some of ``WORDS`` ask for; `more` sets further fields.

    Raises:
      ValueError: an unknown word, or two that contradict each other.
    """
    chosen: dict[str, str] = {}
    for word in words:
        if word not in WORDS:
            near = difflib.get_close_matches(word, WORDS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "see mirage cameras info --help."
            raise ValueError(f"--as: got {word!r}, expected one of {', '.join(WORDS)}; {hint}")
        field = WORDS[word][0]
        if chosen.setdefault(field, word) != word:
            raise ValueError(
                f"--as: got both {chosen[field]!r} and {word!r}, expected one answer to the same "
                "question. Drop one of them."
            )
    return Reading(**{**chosen, **more})


def refuse_two_readings(where: str, question: str, readings: dict[str, str]) -> ValueError:
    """Build the error for a file that can be read in two ways.

    Args:
      where: file, and the place in it.
      question: what is open, as a sentence without full stop.
      readings: word -> what the file would hold if read so.
    """
    lines = [
        f"  --as {word}: {WORDS[word][1]}" + (f"; {found}" if found else "")
        for word, found in readings.items()
    ]
    return ValueError(
        f"{where}: {question}. Choose one of (in mirage generate with --path-as)\n"
        + "\n".join(lines)
    )
