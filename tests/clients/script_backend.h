/* A backend that answers from a script, with the times and the prefix cache of a real one, but without an engine. It takes texts
 * apart into tokens and puts them together by mq_generation, so stop strings, limits and end tokens act as they do for a model.
 *
 * The script is a JSON list of answers, or {"prefill_s": 0, "steps": 4, "token_s": 0, "queue": 256, "answers": [...]}: seconds to
 * read a prompt, progress events meanwhile, seconds before each token, requests that may wait.
 * An answer: {"when": text that the prompt must hold, "answer": what is said, in the model's own form (tool calls and reasoning with
 * their marks), "times": how often it is given (0 or nothing: any number), "prefill_s", "token_s", "error": name of a status,
 * "cancel": true, "hold": true (it stays in the queue until it is released), "prefilled": "local" (as if nothing is said), "remote",
 * "none", "broken" (half of it came from elsewhere), "transfer": true (what failed was a transfer)}.
 * The first answer that fits a request is taken; "ok" where none does. */
#ifndef MQ_SCRIPT_BACKEND_H
#define MQ_SCRIPT_BACKEND_H

#include "server/server.h"

typedef struct script_backend script_backend;

/* text and info are borrowed. Stops the program with a message where the script is wrong. */
script_backend *script_open(const char *json, const mq_text *text, const mq_engine_info *info);
mq_backend script_interface(script_backend *script);
/* Waits for its threads: every job must have been released, or have ended. */
void script_close(script_backend *script);
void script_settle(script_backend *script);       /* waits until no job runs */
uint32_t script_requests(script_backend *script); /* that were submitted so far */
uint32_t script_released(script_backend *script); /* jobs that were released */
void script_drain(script_backend *script);        /* new requests are refused */
/* The last prompt as text; owned by the caller: mq_free. */
char *script_last_prompt(script_backend *script);
/* The options of the latest request; its pointers are not valid. */
mq_request script_last_request(script_backend *script);
/* Its prefill_peer and prefill_lease; "" where they were NULL. */
void script_last_handoff(script_backend *script, char peer[300], char lease[140]);

#endif
