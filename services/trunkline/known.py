"""The models that may be registered by name alone: those shipped, and entries of one's own on top."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

from trunkline_actors.known_models import BadCatalogue, Catalogue, read, shipped

from trunkline.settings import BadSettings, Settings


def known_models(settings: Settings) -> Callable[[], Catalogue]:
    """What these settings make of the catalogue. One's own file is read at once, the shipped one when first asked for.

    Raises BadSettings.
    """
    if settings.catalogue is None:
        return shipped
    try:
        own = read(Path(settings.catalogue).expanduser().read_text(encoding="utf-8"))
    except (BadCatalogue, OSError, UnicodeDecodeError) as error:
        problem = error.strerror if isinstance(error, OSError) else error
        raise BadSettings(f"the catalogue {settings.catalogue} can't be used: {problem}") from error
    return cache(lambda: shipped().with_own(own))
