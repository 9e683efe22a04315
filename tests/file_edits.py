"""Ways to damage a file, for fuzzing: bytes changed, cut, repeated, inserted, the end lost."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EDITS = st.lists(
    st.tuples(
        st.sampled_from(["change", "cut", "repeat", "insert", "end"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 40),
        st.binary(min_size=1, max_size=9),
    ),
    min_size=1,
    max_size=4,
)


def edited(content: bytes, edits) -> bytes:
    for how, where, length, new in edits:
        place = int(where * len(content))
        if how == "change":
            content = content[:place] + new + content[place + len(new) :]
        elif how == "cut":
            content = content[:place] + content[place + length :]
        elif how == "repeat":
            content = content[:place] + 3 * content[place : place + length] + content[place:]
        elif how == "insert":
            content = content[:place] + new + content[place:]
        else:
            content = content[:place]
    return content


def fuzzed(examples: int) -> settings:
    """The same examples in every run; a folder of a test may be used by all of them."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
