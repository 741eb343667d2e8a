/* file_kind: GGUF files that are no language model, told for what they are.
 *
 * Adapters, projectors and importance matrices state it in general.type; older ones, encoders and models that write
 * no text in general.architecture.  Language models that were trained further to encoders keep their architecture: they
 * have a type of pooling, or attention that is not causal. */
#ifndef ZGEN_PLAN_FILE_KIND_H
#define ZGEN_PLAN_FILE_KIND_H

#include "../gguf/gguf.h"

/* false: ERR_MODEL, a sentence that names what the file is and what to do instead. */
bool file_kind_check(const Gguf *g, Err *e);

#endif
