"""The sixteen classes of Workshop-16: their appearance, motion and audio, and the best accuracy of each stream."""

from __future__ import annotations

from tristream.workshop.clips import Recipe

# Four groups; in each only one modality (or the order of two motions) tells the class, the others are neutral.
APPEARANCE = {name: Recipe(material=name) for name in ("wood", "metal", "rubber", "glass")}
MOTION = {name: Recipe(motions=(name,)) for name in ("bounce", "pendulum", "spin", "conveyor")}
SOUND = {name: Recipe(sound=name) for name in ("impact", "hum", "rolling", "squeak")}
ORDER = {
    f"{first}_{second}": Recipe(motions=(first, second))
    for first, second in (
        ("bounce", "spin"),
        ("spin", "bounce"),
        ("pendulum", "conveyor"),
        ("conveyor", "pendulum"),
    )
}
CLASSES: dict[str, Recipe] = APPEARANCE | MOTION | SOUND | ORDER

# Top-1 accuracy (%) of an ideal classifier on uniform classes, by what it can use (SCIENCE.md §3). An observation
# shared by k classes is right once in k times: a ceiling is the number of distinct observations over 16.
CEILINGS: dict[str, float] = {
    "chance": 6.25,
    "spatial": 31.25,
    "temporal": 56.25,
    "temporal order-blind": 43.75,
    "audio": 31.25,
    "spatial+temporal": 81.25,
    "audio+spatial": 56.25,
    "audio+temporal": 81.25,
    "audio+spatial+temporal": 100.0,
    "audio+spatial+temporal order-blind": 87.5,
    "audio+spatial+temporal half silent": 90.625,
}

SHORT_EVENT_SHARE = 0.2
SHORT_EVENT_CLASSES: dict[str, Recipe] = {
    name: Recipe(motions=recipe.motions, event_share=SHORT_EVENT_SHARE)
    for name, recipe in (MOTION | ORDER).items()
}

# Parity of three bits, one for each modality: any two of them are independent of it.
_XOR_BITS = (("wood", "metal"), ("bounce", "spin"), ("impact", "hum"))
XOR_CLASSES: dict[str, tuple[Recipe, ...]] = {
    label: tuple(
        Recipe(material=material, motions=(motion,), sound=sound)
        for i, material in enumerate(_XOR_BITS[0])
        for j, motion in enumerate(_XOR_BITS[1])
        for k, sound in enumerate(_XOR_BITS[2])
        if (i + j + k) % 2 == parity
    )
    for parity, label in enumerate(("even", "odd"))
}
