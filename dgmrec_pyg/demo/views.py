"""What the pages show, found by :class:`~dgmrec_pyg.demo.explorer.Explorer`: plain texts and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

OBSERVED, GENERATED, MISSING = 'observed', 'generated', 'missing'


def percent(share: float) -> str:
    """Returns a share as text: ``93.4 %``, ``0.27 %``, ``-0.31 %``."""
    digits = 1 if abs(share) >= 0.1 else 2
    return f'{round(100 * share, digits) + 0.0:.{digits}f} %'  # + 0.0: no minus before a zero


@dataclass(frozen=True)
class Item:
    """An item as it stands in a list.

    Attributes:
        id (str): Its id.
        name (str): Its name; empty where the set has none.
        status (Mapping): For each modality ``'observed'``, ``'generated'`` or ``'missing'``.
    """

    id: str
    name: str
    status: Mapping[str, str]

    @property
    def title(self) -> str:
        """The name, or else the id."""
        return self.name or self.id

    @property
    def lacks(self) -> dict[str, str]:
        """The modalities that the item has not got itself."""
        return {modality: status for modality, status in self.status.items() if status != OBSERVED}


@dataclass(frozen=True)
class Part:
    """A summand of all scores.

    Attributes:
        key (str): Its name in :meth:`~dgmrec_pyg.nn.DGMRec.score_parts`.
        kind (str): ``'collaborative'``, ``'general'`` or ``'specific'``.
        modality (str): The modality; empty for the collaborative part.
        color (int): The number of its color: the modality's place.
    """

    key: str
    kind: str
    modality: str = ''
    color: int = 0

    @property
    def label(self) -> str:
        """What it is called on the page."""
        return f'{self.kind} {self.modality}'.strip()


@dataclass(frozen=True)
class Recommendation:
    """A recommended item.

    Attributes:
        rank (int): Its rank, from 1.
        item (Item): The item.
        score (float): Its score.
        parts (Mapping): What the score is made of, by the key of a :class:`Part`; empty for models without parts.
        held_back (str): ``'validation'`` or ``'test'`` where the user took the item later; else empty.
    """

    rank: int
    item: Item
    score: float
    parts: Mapping[str, float]
    held_back: str

    def share(self, key: str) -> str:
        """Returns a part as a share of the score, or as it is where the score is not positive."""
        return percent(self.parts[key] / self.score) if self.score > 0 else f'{self.parts[key]:+.4f}'


@dataclass(frozen=True)
class UserView:
    """A user's page.

    Attributes:
        id (str): The user's id.
        history (list): The items of training.
        num_history (int): Their number; the list may be shorter.
        recommendations (list): The best items that are not in the history, best first.
    """

    id: str
    history: list[Item]
    num_history: int
    recommendations: list[Recommendation]


@dataclass(frozen=True)
class Truth:
    """How near a generated feature comes to the item's own, which was hidden from the model.

    Attributes:
        centered_cosine (float): Their cosine after subtracting the mean of the observed items.
        rank (int): The place of the item's own feature among the observed ones, by cosine to the generated feature.
        num_candidates (int): Number of features among which that place is.
    """

    centered_cosine: float
    rank: int
    num_candidates: int


@dataclass(frozen=True)
class ModalityView:
    """One modality of an item.

    Attributes:
        name (str): The modality.
        size (int): Number of values of a feature.
        status (str): ``'observed'``, ``'generated'`` or ``'missing'``.
        strips (Mapping): By what they show, values that are drawn side by side, of the range -1 to 1.
        nearest (list): Items that have the modality, with the cosine of their features to this item's; empty where it
            is missing.
        truth (Truth, optional): Where the feature was generated and the item's own is known.
    """

    name: str
    size: int
    status: str
    strips: Mapping[str, list[float]]
    nearest: list[tuple[Item, float]]
    truth: Truth | None


@dataclass(frozen=True)
class ItemView:
    """An item's page.

    Attributes:
        item (Item): The item.
        is_new (bool): Whether it is a new item, held out of training.
        users (list): The ids of users who have it in their history.
        num_users (int): Their number; the list may be shorter.
        modalities (list): What is known of its modalities.
    """

    item: Item
    is_new: bool
    users: list[str]
    num_users: int
    modalities: list[ModalityView]

    @property
    def sources(self) -> list[str]:
        """What the item's missing modalities can be generated from: its own ones, and its users."""
        users = [f'{self.num_users:,} {"user" if self.num_users == 1 else "users"}'] if self.num_users else []
        return [*(name for name, status in self.item.status.items() if status == OBSERVED), *users]


@dataclass(frozen=True)
class StartView:
    """The start page.

    Attributes:
        num_users (int): Number of users.
        num_items (int): Number of items.
        num_interactions (int): Number of training interactions.
        missing (Mapping): For each modality the share of items that lack it.
        users (list): Some users to start with, and the lengths of their histories.
        items (Mapping): By what they lack, some items to start with.
    """

    num_users: int
    num_items: int
    num_interactions: int
    missing: Mapping[str, float]
    users: list[tuple[str, int]]
    items: Mapping[str, list[Item]]
