"""Selection methods compared at equal effect on the language itself."""
