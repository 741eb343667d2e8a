/* passes: what happens to a tape between the family and the executor.  See plan.h. */
#ifndef ZGEN_PLAN_PASSES_H
#define ZGEN_PLAN_PASSES_H

#include "plan.h"

void plan_fuse(Plan *p);
void plan_place(Plan *p);
void plan_allocate(Plan *p);

#endif
