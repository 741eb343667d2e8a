/* chat_commands: lines of a conversation that are meant for zgen and not for the model: /help, /clear, ... */
#ifndef ZGEN_CLI_CHAT_COMMANDS_H
#define ZGEN_CLI_CHAT_COMMANDS_H

#include "conversation.h"

/* Whether a line begins with the name of a command; any other word behind a slash is part of a message. */
bool chat_is_command(const char *line);

/* Runs the command that the line begins with.  false: see chat_answer. */
bool chat_command(Chat *c, const char *line, Err *e);

#endif
