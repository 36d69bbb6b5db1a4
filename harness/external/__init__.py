"""Losses that an engine computed, as rows like ours: prompts go out as token ids, log-probabilities come back.

settings.of(composed)                    -> Settings, [Config]   checked before anything is read
cells.prepare(configs, settings)         -> [Prepared]           cells that say that their losses are an engine's
prompts.of(prepared, documents)          -> [[Prompt]]           what the engine sees of each document's windows
answers.read(file) | fetch.answers(...)  -> {id: Answer}         from a file, or from a server in its dialect
finish.write(prepared, documents, ...)   -> rows                 checked against the windows, written as always
"""
