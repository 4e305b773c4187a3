"""Several recorded runs read back and set side by side: what differs, and how alike they see the same words."""
