/* questions: zgen perplexity --hellaswag, --winogrande and --multiple-choice.
 *
 * text/question.h has the files, run/score.h the scores.  stdout gets the share of right answers with one standard
 * error, its interval of 95 % by Wilson's formula, and what answering by chance would give; with --json an
 * object:
 *
 *     {"model", "questions", "file" (questions in it), "accuracy": {"value", "error"}, "interval": [low, high],
 *      "chance", "answers": [{"scores" (nats), "chosen", "right"}], "executor", ..., "seconds"} */
#ifndef ZGEN_CLI_QUESTIONS_H
#define ZGEN_CLI_QUESTIONS_H

#include "options.h"

/* o->questions names the form.  false: see cmd_perplexity. */
bool questions_run(const Options *o, Err *e);

#endif
