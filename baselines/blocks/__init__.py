"""The parts that several methods share, each once; no method imports another.

`batches` and `loop` serve every method that trains, with `plan` and `capture` for a GPU that waits
for nothing; `weak` serves those that learn from labelled anomalies, `frozen` those that remember
ImageNet features of normal images. The other modules are single parts: a backbone, a loss, a
search, pseudo anomalies. What one method alone uses lies in the method's own folder.
"""
