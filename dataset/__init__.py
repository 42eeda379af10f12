"""Videos of a data set: which there are, their labels, splits and groups. Nothing is decoded here."""
