"""Multi-query associative recall: which value went with this key? (Zoology, Arora et al., 2023)."""
