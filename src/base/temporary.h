/* temporary: the named temporary files of this process, which no exit leaves behind.
 *
 * A file is listed while it is unfinished.  Those on the list are removed by exit(), and by the handler of a
 * mapping whose file was cut short; only SIGKILL leaves them. */
#ifndef ZGEN_BASE_TEMPORARY_H
#define ZGEN_BASE_TEMPORARY_H

void temporary_add(const char *path); // the caller's, until it is forgotten
void temporary_forget(const char *path);

/* Unlinks all on the list.  May be called by a signal handler. */
void temporary_remove_all(void);

#endif
