"""How finely a person's surfaces are divided: fully for large pictures, coarser where a pixel would not show it."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Detail:
    """Rows and columns of every surface's grid of vertices. The defaults are the full mesh."""

    head_rows: tuple[int, int, int] = (10, 56, 6)  # crown to forehead, brow to chin, throat
    head_columns: int = 89
    hair_rows: int = 34
    hair_columns: int = 81
    bun: tuple[int, int] = (15, 25)
    ear: tuple[int, int] = (11, 33)  # rings and spokes
    body_rows: tuple[int, int, int] = (7, 34, 4)  # neck, where collars are, chest
    body_columns: int = 53
    rim: int = 29  # points round a glass
    temple: int = 9  # points along a temple and the bridge
    tube: int = 6  # sides of the glasses' tubes


FULL = Detail()
_MIDDLE = Detail((8, 44, 5), 67, 26, 67, (11, 19), (9, 25), (5, 24, 4), 39, 21, 6, 4)
_COARSE = Detail((6, 34, 4), 49, 20, 57, (9, 15), (7, 17), (4, 18, 3), 29, 15, 4, 3)


def detail_of(size: int) -> Detail:  # pixels a side
    """The division for pictures of this size: the full one above 160."""
    return FULL if size > 160 else _MIDDLE if size > 96 else _COARSE
