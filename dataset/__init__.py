"""Videos of a data set with their labels, splits and groups. Nothing is decoded here."""
