"""What plugins compute with (torch): attention blocks, masking, losses, metrics, processors."""
