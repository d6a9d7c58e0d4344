"""Text that is anybody's, where Streamlit takes Markdown."""

MARKS = r"\`*_[]<>$#|~:"


def plain(text: str) -> str:
    """Text as it is, not as Markdown."""
    for mark in MARKS:
        text = text.replace(mark, "\\" + mark)
    return text
