"""Models: where they come from, what shape their rotary embedding has, how other frequencies get in."""
