/* score: how likely a model finds each text of a question (text/question.h). */
#ifndef ZGEN_RUN_SCORE_H
#define ZGEN_RUN_SCORE_H

#include "engine.h"
#include "../text/question.h"

/* The scores [q->n] of the question's texts.  The engine has as many positions as the longest; its R_max is
 * the number of rows of logits in memory.  false: *e. */
bool question_scores(Engine *g, const Question *q, double *scores, Err *e);

#endif
