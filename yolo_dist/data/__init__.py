"""From a dataset's own files to batches: cards, formats, conversion, shards, sample order, augmentation, loading."""
