"""Losses that an engine computed, as rows like ours: prompts go out as token ids, log-probabilities come back.

settings.of(values, action)            -> Settings, [Config]   checked before anything is read
cells.prepare(configs, settings, ...)  -> [Prepared]           cells that say that their losses are an engine's
prompts.of(prepared, documents)        -> [[Prompt]]           what the engine sees of each document's windows
answers.read(file)                     -> {id: Answer}         log-probabilities of a file, or
fetch.fetch(...)                                               of a server, asked in its dialect, kept as they come
finish.write(...)                      -> rows                 checked against the windows, written as always
"""
