"""Normal clips whose appearance, motion and audio match, and eight kinds of anomalies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tristream.workshop.clips import Recipe

# An impact of the normal class rings within a fifth of an octave, so that one that is out of tune can be heard.
NORMAL_IMPACT_HZ = (450.0, 520.0)

NORMAL: dict[str, Recipe] = {
    "metal_bounce": Recipe(
        "metal", ("bounce",), "impact", impacts_at="contacts", impact_hz=NORMAL_IMPACT_HZ
    ),
    "rubber_spin": Recipe("rubber", ("spin",), "hum"),
    "wood_conveyor": Recipe("wood", ("conveyor",), "rolling"),
}


def _everywhere(**changes: Any) -> dict[str, tuple[Recipe, ...]]:
    return {label: (replace(recipe, **changes),) for label, recipe in NORMAL.items()}


def _bounce(**changes: Any) -> dict[str, tuple[Recipe, ...]]:
    return {"metal_bounce": (replace(NORMAL["metal_bounce"], **changes),)}


def _swapped() -> dict[str, tuple[Recipe, ...]]:
    """Pair every appearance with each of the two other sounds, equally often.

    Frames alone and audio alone are then distributed exactly as in normal clips; only the pairing is wrong.
    """
    return {
        label: tuple(
            replace(
                recipe,
                sound=other.sound,
                impacts_at="contacts of another",
                impact_hz=other.impact_hz,
            )
            for other_label, other in NORMAL.items()
            if other_label != label
        )
        for label, recipe in NORMAL.items()
    }


# kind → normal class it derives from → its recipes, taken in turn. A kind is made of the classes where it means
# something, and is to be compared with normal clips of the same classes only.
KINDS: dict[str, dict[str, tuple[Recipe, ...]]] = {
    "glass": _everywhere(
        material="glass"
    ),  # a class of Workshop-16, never seen among the normal clips
    "unseen_material": _everywhere(material="ceramic"),  # in no class of Workshop-16
    "speed_x3": {
        label: (
            replace(NORMAL[label], speed_factor=3.0),
        )  # not the bounce: its sound would tell as well
        for label in ("rubber_spin", "wood_conveyor")
    },
    "gravity_reversed": _bounce(gravity=-1),
    "impact_removed": _bounce(sound="neutral"),
    "impact_detuned": _bounce(impact_hz=(1.6 * NORMAL_IMPACT_HZ[0], 1.6 * NORMAL_IMPACT_HZ[1])),
    "audio_shifted": _bounce(sound_shift_seconds=0.5),
    "swapped_pairing": _swapped(),
}
