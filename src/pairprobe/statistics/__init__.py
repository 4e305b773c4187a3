"""What similarities of pairs say: arrays in, records out. Nothing here knows of models, configuration or storage."""
