"""What a model looks at, and what its layers know: attributions, ablations, similarity, drift, probes."""
