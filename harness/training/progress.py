"""What a running training shows, and what stops it."""

import math

from transformers import ProgressCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from harness.errors import UserError


class Progress(ProgressCallback):
    """One bar with the time left and, where the stock one prints a line for every log, the last loss."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        """Show the loss beside the bar."""
        if self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix(loss=f"{logs['loss']:.4f}")


class FiniteLoss(TrainerCallback):
    """Stops a run whose loss is no number any more."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        """Raise UserError on NaN or infinity."""
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(loss):
            raise UserError(
                f"The training loss became {loss} by step {state.global_step}; lower train.learning_rate, "
                f"got {args.learning_rate}."
            )
