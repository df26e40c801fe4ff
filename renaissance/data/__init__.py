"""Records, readers, splits, decoding, augmentation and collation."""
