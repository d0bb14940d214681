"""The samples that verbs calibrate on, judge by and time."""
