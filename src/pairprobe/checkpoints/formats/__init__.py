"""Storage formats, one file each: a module here with a function `recognise` is a format (`checkpoints.weight`)."""
