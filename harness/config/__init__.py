"""What a user can write in conf/, as dataclasses, checked."""
