/* family: one row per model family.  A family is a leaf: it emits ops and knows nothing of executors. To add
 * one, write family/<arch>.c with one function and add its row in family.c. */
#ifndef ZGEN_PLAN_FAMILY_H
#define ZGEN_PLAN_FAMILY_H

#include "../emit.h"

typedef struct Family {
    const char *arch;     // general.architecture
    void (*emit)(Pen *p); // writes the whole tape
} Family;

const Family *family_find(const char *arch); // NULL if there is none
void family_list(Buf *out);                  // "llama, ..." for messages

void family_llama(Pen *p);

#endif
