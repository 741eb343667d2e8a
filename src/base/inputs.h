/* inputs: the files that this process has read, so that no output replaces one of them.
 *
 * A file is known by device and inode: a link, another name or standard input may lead to it.  Only regular
 * files are kept, because others have no content that could be lost. */
#ifndef ZGEN_BASE_INPUTS_H
#define ZGEN_BASE_INPUTS_H

#include <stdbool.h>
#include <sys/stat.h>

void inputs_add(int fd);

/* Whether the file was read; the executable, which has the demo model inside, always was. */
bool inputs_have(const struct stat *file);

/* For a file that may be replaced after all: a conversation is saved where it was loaded from. */
void inputs_remove(const char *path);

#endif
