"""Reference cases recorded from the released codes, and their replay through this library."""
