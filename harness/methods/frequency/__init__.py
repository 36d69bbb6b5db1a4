"""Methods that change rotary frequencies."""
