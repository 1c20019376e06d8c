"""A toolkit for publication figures: as wide as a column, fonts embedded, colours that colour-blind readers tell apart."""
