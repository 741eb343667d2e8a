/* passes: the changes of a tape between the family and the executor.  See plan.h. */
#ifndef ZGEN_PLAN_PASSES_H
#define ZGEN_PLAN_PASSES_H

#include "tape.h"

void plan_fuse(Plan *p);       // several ops into one, as far as the executor runs it
void plan_copy_views(Plan *p); // a copy of each view that its reader cannot read where it is
void plan_forms(Plan *p);      // in which forms each register is kept
void plan_allocate(Plan *p);   // register lifetimes into one block of memory per kind

#endif
