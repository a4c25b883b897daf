"""The deployable units: a folder each, with a door per cloud that translates and calls one function of the library."""
