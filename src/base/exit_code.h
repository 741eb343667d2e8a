/* exit_code: the exit codes of the process, which are the codes of errors; README.md and the man page list
 * them. */
#ifndef ZGEN_BASE_EXIT_CODE_H
#define ZGEN_BASE_EXIT_CODE_H

enum {
    ERR_RUN = 1,    // failed while running: prompt file unreadable, prompt longer than the context, ...
    ERR_USAGE = 2,  // wrong command line
    ERR_MODEL = 3,  // the model file: missing, unreadable, malformed, unsupported
    ERR_MEMORY = 4, // model or context do not fit into memory
    ERR_OUTPUT = 5, // the output could not be written
    ERR_SIGHUP = 129,
    ERR_SIGINT = 130,
    ERR_SIGTERM = 143,
    ERR_PIPE = 141, // the reader of stdout closed it
};

#endif
