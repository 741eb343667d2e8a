/* unescape: the escapes that stand for characters in texts of the command line. */
#ifndef ZGEN_CLI_UNESCAPE_H
#define ZGEN_CLI_UNESCAPE_H

#include "../base/buf.h"

/* Appends text with \n \r \t \\ \" \' replaced by their characters, \xHH by the byte, and \uHHHH (two of them
 * for a surrogate pair) by the character in UTF-8.  A backslash before anything else is kept. */
void unescape(const char *text, Buf *out);

#endif
