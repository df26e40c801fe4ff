"""Statistics of paired, nested designs: what the scores of a study say, how sure that is, and how many seeds it takes.

The unit of replication is the pretraining seed: fine-tuning seeds and items within one are averaged, never counted as
if they were pretrained anew. Arms share their seeds and items, so they are compared pair by pair. All functions take
arrays and return frozen results whose `facts()` go into JSON; a higher score is a better one.

`paired`: contrasts of arms, t and bootstrap intervals. `permutation`: sign flips. `equivalence`: superiority, no loss,
equivalence, and no loss of a share of a gain. `holm`: several hypotheses. `variance`: where the spread comes from.
`power`: seeds for a margin, margins for seeds. Letters: P pretraining seeds, F fine-tuning seeds in each, U items.

These modules need the extra `study` (scipy, statsmodels); this one imports nothing.
"""
