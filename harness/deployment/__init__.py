"""From a method to the settings of an engine, and back: what to type so that an engine does what was measured."""
