"""Configuration groups; a package, so that it is found from an editable install and a wheel alike."""
