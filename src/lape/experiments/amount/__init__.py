"""How much text the sets need, and whether they follow the kind of text."""
