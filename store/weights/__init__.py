"""Pretrained weights by name: where they are stored, how they are downloaded, checked and converted."""

from tristream.store.weights.library import READY, Missing, Places, about, add, get, places, state

__all__ = ["READY", "Missing", "Places", "about", "add", "get", "places", "state"]
