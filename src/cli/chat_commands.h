/* chat_commands: lines of a conversation that are meant for zgen and not for the model: /help, /clear, ... */
#ifndef ZGEN_CLI_CHAT_COMMANDS_H
#define ZGEN_CLI_CHAT_COMMANDS_H

#include "conversation.h"

/* Whether a line is a command: a slash and a word of lower-case letters, which a path is not. */
bool chat_is_command(const char *line);

/* Runs the command in the line; an unknown one prints a hint.  false: see chat_answer. */
bool chat_command(Chat *c, const char *line, Err *e);

#endif
