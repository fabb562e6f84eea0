"""What is read from AnnData and MuData, for all that take them: expression, pseudotime, lineages, modalities and regulators."""
